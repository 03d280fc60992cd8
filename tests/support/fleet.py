"""Gateways and workers as processes of their own, callers who ask them, and what is demanded of every reply.

Every picture has a score of its own, so an answer that goes to the wrong caller is seen.
"""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import httpx
import pytest
from pictures import encode, noise
from redis_server import RedisServer
from serving import HOST, Server, serving

PICTURES = [encode(noise(64, 64, seed) // (seed + 1), "PNG") for seed in range(24)]
# Beyond a deadline: promised is a tenth of a second, on a machine that has nothing else to do.
SLACK_S = 5.0


class Fleet:
    """Starts the processes of one repository and one Redis.

    Args:
        settings: of all of them; each may have further ones.
    """

    def __init__(self, processes: ExitStack, repository: Path, **settings: object) -> None:
        self._processes = processes
        self._repository = repository
        self._settings = settings
        self.gateways: list[Server] = []

    def gateway(self, **settings: object) -> Server:
        self.gateways.append(self._start("serve", settings))
        return self.gateways[-1]

    def worker(self, **settings: object) -> Server:
        return self._start("worker", settings)

    def _start(self, command: str, settings: dict[str, object]) -> Server:
        return self._processes.enter_context(serving(self._repository, command, **(self._settings | settings)))


@contextmanager
def fleet(repository: Path, redis: RedisServer, **settings: object) -> Iterator[Fleet]:
    """A fleet on an empty Redis; at its end nothing may be left there, and what gateways counted adds up."""
    redis.client.flushall()
    defaults: dict[str, object] = {
        "redis_url": redis.url,
        "redis_timeout_s": 5,  # a busy machine is not a Redis out of reach
        "threads": 1,
    }
    with ExitStack() as processes:
        started = Fleet(processes, repository, **(defaults | settings))
        yield started
        for gateway in started.gateways:
            if gateway.process.poll() is None:
                gateway.assert_metrics_add_up()
    assert redis.client.xlen("{clicv2}:jobs") == 0, "a job was left in Redis"


@dataclass(frozen=True)
class Reply:
    """What a caller got: `picture` is an index of PICTURES."""

    picture: int
    response: httpx.Response
    took_s: float

    @property
    def ok(self) -> bool:
        return self.response.is_success

    @property
    def problem(self) -> str:
        """The last part of the problem's type."""
        return str(self.response.json()["type"]).removeprefix("urn:clicv2:problem:")


# Nobody here speaks TLS, and to read the certificates of this machine anew for each connection takes 1 ms: with
# hundreds of callers who come in the same second it would be the client again that is measured.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class OneEach(httpx.AsyncBaseTransport):
    """A connection for each caller.

    httpx looks through all connections of a pool for each request, and lets requests queue for one that is not there
    yet: with hundreds of callers it would be the client that is measured.
    """

    def __init__(self) -> None:
        self._free: list[httpx.AsyncHTTPTransport] = []
        self._all: list[httpx.AsyncHTTPTransport] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        transport = self._free.pop() if self._free else self._another()
        try:
            response = await transport.handle_async_request(request)
        except BaseException:
            self._free.append(transport)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Lent(response.stream, lambda: self._free.append(transport))
        return response

    def _another(self) -> httpx.AsyncHTTPTransport:
        self._all.append(httpx.AsyncHTTPTransport(verify=_NO_TLS))
        return self._all[-1]

    async def aclose(self) -> None:
        for transport in self._all:
            await transport.aclose()


class _Lent(httpx.AsyncByteStream):
    """A body, whose connection is given back when it is closed."""

    def __init__(self, body: httpx.AsyncByteStream, give_back: Callable[[], None]) -> None:
        self._body = body
        self._give_back = give_back

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._body:
            yield part

    async def aclose(self) -> None:
        await self._body.aclose()
        self._give_back()


@asynccontextmanager
async def caller_of(gateway: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"http://{HOST}:{gateway.port}", timeout=120, transport=OneEach(), trust_env=False
    ) as client:
        yield client


async def ask(client: httpx.AsyncClient, picture: int, *, key: str | None = None, **parameters: str) -> Reply:
    """Ask for a score.

    Args:
        picture: an index of PICTURES, which begins again at their end.
        key: for Idempotency-Key.
        parameters: of the query.
    """
    picture %= len(PICTURES)
    headers = {"Content-Type": "image/png"} | ({"Idempotency-Key": key} if key else {})
    started = time.monotonic()
    response = await client.post("/v1/complexity", content=PICTURES[picture], headers=headers, params=parameters)
    return Reply(picture, response, time.monotonic() - started)


async def ask_all(client: httpx.AsyncClient, **parameters: str) -> list[Reply]:
    """One request for each picture, all at once."""
    return await asyncio.gather(*(ask(client, picture, **parameters) for picture in range(len(PICTURES))))


@asynccontextmanager
async def asking(
    client: httpx.AsyncClient, callers: int, *, pause_s: float = 0.05, keyed: bool = False
) -> AsyncIterator[list[Reply]]:
    """Callers who ask for one picture after the other while the block lasts; at its end each has its last reply.

    Args:
        pause_s: of each, before the next picture.
        keyed: each request has an Idempotency-Key of its own.
    """
    replies: list[Reply] = []
    enough = False

    async def call(first: int) -> None:
        picture = first
        while not enough:
            replies.append(await ask(client, picture, key=token_hex(8) if keyed else None))
            picture += callers
            await asyncio.sleep(pause_s)

    async with asyncio.TaskGroup() as tasks:
        for first in range(callers):
            tasks.create_task(call(first))
        try:
            yield replies
        finally:
            enough = True


async def until_more(replies: Sequence[Reply], count: int, status: int = 200) -> None:
    """Wait until so many more have come with that status."""
    seen = len(replies)
    async with asyncio.timeout(120):
        while sum(reply.response.status_code == status for reply in replies[seen:]) < count:  # noqa: ASYNC110  # of tasks
            await asyncio.sleep(0.02)


async def until_ready(client: httpx.AsyncClient, ready: bool = True) -> httpx.Response:
    """Wait until /readyz says so; its response."""
    async with asyncio.timeout(60):
        while (response := await client.get("/readyz")).is_success is not ready:  # noqa: ASYNC110  # of another process
            await asyncio.sleep(0.1)
    return response


def scores_of(repository: Path) -> list[float]:
    """What each of PICTURES scores where nothing goes wrong; no two the same."""
    with serving(repository) as embedded:
        scores = [float(embedded.score(picture).raise_for_status().json()["score"]) for picture in PICTURES]
    assert len(set(scores)) == len(scores)
    return scores


def judge(
    replies: Sequence[Reply], scores: Sequence[float], *, within_s: float, allowed: frozenset[int] = frozenset()
) -> Counter[int]:
    """Every reply came in time; an answer is that of its own picture, and a refusal says what it is.

    Args:
        scores: of each picture.
        within_s: the deadline; `SLACK_S` is added.
        allowed: statuses beside 200.

    Returns how often each status came.
    """
    for reply in replies:
        assert reply.took_s <= within_s + SLACK_S
        assert reply.ok or reply.response.status_code in allowed, reply.response.text
        if reply.ok:
            assert reply.response.json()["score"] == pytest.approx(scores[reply.picture], abs=1e-4)
        else:
            assert reply.response.headers["content-type"] == "application/problem+json"
            assert int(reply.response.headers["retry-after"]) >= 1
    return Counter(reply.response.status_code for reply in replies)


async def arriving(client: httpx.AsyncClient, rate: float, for_s: float) -> list[Reply]:
    """Requests at a constant rate, `rate` a second, however many are not answered yet."""
    started = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        asked = []
        for number in range(round(rate * for_s)):
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            asked.append(tasks.create_task(ask(client, number)))
    return [task.result() for task in asked]
