"""Makes calls and waits for what comes of them: in a thread, or in a task of asyncio.

`exchange` says what is to be done, `sending` does one attempt; between the two there is only the waiting.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

import httpx

from clicv2_client.answers import Reply, problem_of
from clicv2_client.errors import Clicv2Error, InvalidAnswer, TimedOut
from clicv2_client.exchange import Call, Exchange, Outcome, Program, Send
from clicv2_client.options import LIMITS, Options
from clicv2_client.results import JobEvent
from clicv2_client.retry import Retry
from clicv2_client.sending import failure, send, send_async, timeout

T = TypeVar("T")

# A stream that says nothing for so long is dead: the service says every 15 s that it is still there.
SILENCE_S = 60.0
_EVENT_STREAM = "text/event-stream"


class Asking:
    """In the calling thread; threads may share one."""

    def __init__(self, options: Options, retry: Retry, transport: httpx.BaseTransport | None) -> None:
        self.exchange = Exchange(retry, time.monotonic, random.random)
        self._http = httpx.Client(
            base_url=options.base_url, headers=options.headers, limits=LIMITS, transport=transport
        )

    def close(self) -> None:
        self._http.close()

    def ask(self, call: Call[T], over: Event | None = None) -> T:
        return self.run(self.exchange.of(call), over)

    def run(self, program: Program[T], over: Event | None = None) -> T:
        """Args: over: nobody waits for the result any more, so nothing is sent again."""
        outcome: Outcome = None
        while True:
            try:
                step = program.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Send):
                outcome = send(self._http, step)
            elif over is None:
                time.sleep(step.seconds)
                outcome = None
            elif over.wait(step.seconds):
                raise TimedOut("nobody waits for it any more")
            else:
                outcome = None

    def listen(self, call: Call[None], after: int, timeout_s: float | None) -> Generator[JobEvent, None, None]:
        listening, time_left = self.exchange.listening(after, timeout_s), _TimeLeft.of(timeout_s)
        while not listening.ended:
            error: Clicv2Error | None = None
            try:
                request = _request(self._http, call, listening.headers(), time_left)
                with closing(self._http.send(request, stream=True)) as response:
                    if response.status_code == httpx.codes.NO_CONTENT:
                        return
                    if _is_stream(response):
                        for piece in response.iter_bytes():
                            yield from listening.feed(piece)
                            time_left.check()
                    else:
                        error = _refusal(response, response.read())
            except httpx.HTTPError as found:
                error = failure(found)
            if not listening.ended:
                time.sleep(time_left.bound(listening.pause_s(_unless_silent(error)), error))


class AsyncAsking:
    """In a task of asyncio; tasks of one loop may share one."""

    def __init__(self, options: Options, retry: Retry, transport: httpx.AsyncBaseTransport | None) -> None:
        self.exchange = Exchange(retry, time.monotonic, random.random)
        self._http = httpx.AsyncClient(
            base_url=options.base_url, headers=options.headers, limits=LIMITS, transport=transport
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, call: Call[T]) -> T:
        return await self.run(self.exchange.of(call))

    async def run(self, program: Program[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                step = program.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Send):
                outcome = await send_async(self._http, step)
            else:
                await asyncio.sleep(step.seconds)
                outcome = None

    async def listen(self, call: Call[None], after: int, timeout_s: float | None) -> AsyncGenerator[JobEvent, None]:
        listening, time_left = self.exchange.listening(after, timeout_s), _TimeLeft.of(timeout_s)
        while not listening.ended:
            error: Clicv2Error | None = None
            try:
                request = _request(self._http, call, listening.headers(), time_left)
                response = await self._http.send(request, stream=True)
                try:
                    if response.status_code == httpx.codes.NO_CONTENT:
                        return
                    if _is_stream(response):
                        async for piece in response.aiter_bytes():
                            for event in listening.feed(piece):
                                yield event
                            time_left.check()
                    else:
                        error = _refusal(response, await response.aread())
                finally:
                    await response.aclose()
            except httpx.HTTPError as found:
                error = failure(found)
            if not listening.ended:
                await asyncio.sleep(time_left.bound(listening.pause_s(_unless_silent(error)), error))


@dataclass(frozen=True, slots=True)
class _TimeLeft:
    """Until an instant of the monotonic clock, which may be never."""

    until: float
    timeout_s: float | None

    @classmethod
    def of(cls, timeout_s: float | None) -> "_TimeLeft":
        return cls(float("inf") if timeout_s is None else time.monotonic() + timeout_s, timeout_s)

    @property
    def seconds(self) -> float:
        return self.until - time.monotonic()

    def check(self) -> None:
        """Raises TimedOut."""
        if self.seconds <= 0:
            raise TimedOut(f"the job has not ended within {self.timeout_s:g} s")

    def bound(self, pause_s: float, error: Clicv2Error | None) -> float:
        """The pause, if there is time for it. Raises the error, or TimedOut."""
        if pause_s >= self.seconds:
            raise error or TimedOut(f"the job has not ended within {self.timeout_s:g} s")
        return pause_s


def _request(
    http: httpx.Client | httpx.AsyncClient, call: Call[None], headers: dict[str, str], time_left: _TimeLeft
) -> httpx.Request:
    return http.build_request(
        call.method,
        call.path.removeprefix("/"),
        headers={**call.headers, **headers},
        timeout=timeout(min(SILENCE_S, time_left.seconds)),
    )


def _is_stream(response: httpx.Response) -> bool:
    return response.is_success and response.headers.get("content-type", "").startswith(_EVENT_STREAM)


def _refusal(response: httpx.Response, content: bytes) -> Clicv2Error:
    if response.is_success:
        return InvalidAnswer("no stream of events; is this URL a CLICv2 service's?")
    return problem_of(Reply(response.status_code, response.headers, content))


def _unless_silent(error: Clicv2Error | None) -> Clicv2Error | None:
    """A stream that has said nothing for too long is one that has ended too soon."""
    return None if type(error) is TimedOut else error
