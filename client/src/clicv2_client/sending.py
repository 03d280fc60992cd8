"""One attempt over HTTP, and what it came to: all that differs between waiting in a thread and in a task.

The time of an attempt is bounded as a whole. In a thread each wait for the network is, and between two pieces of a body
the clock is looked at: an answer that drips may take up to twice as long. A task is cancelled to the moment.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import TypeVar

import httpx

from clicv2_client.answers import Reply
from clicv2_client.bodies import Opened
from clicv2_client.errors import Clicv2Error, ConnectionFailed, InvalidAnswer, TimedOut
from clicv2_client.exchange import Send

T = TypeVar("T")

# A host that is there takes a connection much sooner; one that is not may be another one by the next attempt.
CONNECT_S = 5.0


def send(http: httpx.Client, step: Send) -> Reply | Clicv2Error:
    """Raises UnreadablePicture."""
    try:
        if step.call.body is None:
            return _sent(http, request(http, step), step.until)
        opened = step.call.body.open()
        with closing(opened.pieces):
            return _sent(http, request(http, step, opened, _in_time(opened.pieces, step.until)), step.until)
    except (httpx.HTTPError, TimeoutError) as error:
        return failure(error)


async def send_async(http: httpx.AsyncClient, step: Send) -> Reply | Clicv2Error:
    """Raises UnreadablePicture."""
    try:
        async with asyncio.timeout(step.until - time.monotonic()):
            body = step.call.body
            if body is None:
                return await _sent_async(http, request(http, step))
            opened = body.open() if body.in_memory else await _in_thread(body.open)
            with closing(opened.pieces):
                pieces = _each(opened.pieces) if body.in_memory else _each_in_thread(opened.pieces)
                return await _sent_async(http, request(http, step, opened, pieces))
    except (httpx.HTTPError, TimeoutError) as error:
        return failure(error)


def request(
    http: httpx.Client | httpx.AsyncClient,
    step: Send,
    opened: Opened | None = None,
    content: Iterator[bytes] | AsyncIterator[bytes] | None = None,
) -> httpx.Request:
    return http.build_request(
        step.call.method,
        step.call.path.removeprefix("/"),  # of the base URL, which may have a path of its own
        params=dict(step.call.params),
        headers={**step.headers, **(opened.headers if opened else {})},
        content=content,
        timeout=timeout(step.until - time.monotonic()),
    )


def timeout(left_s: float) -> httpx.Timeout:
    """Of each wait for the network."""
    return httpx.Timeout(max(0.001, left_s), connect=max(0.001, min(CONNECT_S, left_s)))


def failure(error: Exception) -> Clicv2Error:
    """What it is to a caller that there is no answer."""
    kind = _kind(error)
    kind.__cause__ = error
    return kind


def _kind(error: Exception) -> Clicv2Error:
    if isinstance(error, httpx.ConnectTimeout):
        return ConnectionFailed("no connection in time")
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return TimedOut("no answer in time")
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
        return ConnectionFailed(f"not sent: {error}", retryable=False)
    if isinstance(error, httpx.TransportError):
        # A certificate that is refused will be refused again.
        return ConnectionFailed(f"no answer: {str(error) or type(error).__name__}", retryable=not _is_refusal(error))
    return InvalidAnswer(f"an answer that cannot be read: {error}")


def _is_refusal(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _sent(http: httpx.Client, request: httpx.Request, until: float) -> Reply:
    response = http.send(request, stream=True)
    with closing(response):
        content = b"".join(_in_time(response.iter_bytes(), until))
    return Reply(response.status_code, response.headers, content)


async def _sent_async(http: httpx.AsyncClient, request: httpx.Request) -> Reply:
    response = await http.send(request)
    return Reply(response.status_code, response.headers, response.content)


def _in_time(pieces: Iterator[bytes], until: float) -> Iterator[bytes]:
    for piece in pieces:
        if time.monotonic() > until:
            raise TimeoutError
        yield piece


async def _each(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _each_in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while piece := await _in_thread(lambda: next(pieces, b"")):
        yield piece


async def _in_thread(function: Callable[[], T]) -> T:
    """Not left before it is done, even when cancelled: what it works on is about to be closed."""
    running = asyncio.get_running_loop().run_in_executor(None, function)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
