"""Everything that keeps connections to Redis, on a network that resets them while they lie in their pool."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from proxy import HOST, Fault, Proxy, proxy
from queues import closing
from redis_server import RedisServer, redis_server

from service.allowance import Allowance
from service.cache.redis import RedisStore
from service.ledger.redis import RedisLedger
from service.limits import Limiter, RedisCounts
from service.queue.connections import Pool, Reconnecting
from service.queue.redis import RedisQueue

pytestmark = pytest.mark.anyio

# Nobody waits here: what is slow is the machine.
PATIENT_S = 10.0
KEY = bytes(32)

Ask = Callable[[], Awaitable[object]]


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Production runs on uvloop, where to write to a connection that was reset raises RuntimeError."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def network(redis: RedisServer) -> Iterator[Proxy]:
    redis.client.flushall()
    with proxy(redis.port) as network:
        yield network


@asynccontextmanager
async def queue(url: str) -> AsyncIterator[Ask]:
    queue = RedisQueue(url, capacity=5, lease_s=5, max_attempts=2, result_ttl_s=1, timeout_s=PATIENT_S)
    async with closing(queue):
        yield queue.depth


@asynccontextmanager
async def ledger(url: str) -> AsyncIterator[Ask]:
    ledger = RedisLedger(url, prefix="key:", ttl_s=60, timeout_s=PATIENT_S)
    yield lambda: ledger.first("a", "x")
    await ledger.close()


@asynccontextmanager
async def cache(url: str) -> AsyncIterator[Ask]:
    store = RedisStore(url, slots=1, ttl_s=60, timeout_s=PATIENT_S)

    async def ask() -> object:
        return await store.get(KEY), store.resting

    yield ask
    await store.close()


@asynccontextmanager
async def limiter(url: str) -> AsyncIterator[Ask]:
    lost: list[None] = []
    limiter = Limiter(RedisCounts(url, PATIENT_S), timeout_s=PATIENT_S, on_lost=lambda: lost.append(None))

    async def ask() -> object:
        standing = await limiter.take("quota", "a", Allowance(10, 86_400), 0)
        return standing.remaining, lost

    yield ask
    await limiter.close()


@pytest.mark.parametrize("opened", [queue, ledger, cache, limiter])
async def test_who_was_cut_off_while_nobody_asked_does_not_notice(
    network: Proxy, opened: Callable[[str], AbstractAsyncContextManager[Ask]]
) -> None:
    async with opened(f"redis://{HOST}:{network.port}/0") as ask:
        before = await ask()
        network.impose(Fault.RESET)
        network.impose(Fault.NONE)
        await asyncio.sleep(0.2)  # until this end has heard of it
        assert await ask() == before


@pytest.mark.parametrize("url", ["redis://localhost", "rediss://localhost", "unix:///run/redis.sock"])
def test_no_kind_of_connection_is_left_out(url: str) -> None:
    assert issubclass(Pool.from_url(url).connection_class, Reconnecting)


def test_the_counts_keep_theirs_as_the_others_do() -> None:
    """throttled-py makes its pool itself, and would also read another one's options into it."""
    pool = RedisCounts("rediss://localhost", 1.5)._backend.get_client().connection_pool
    assert isinstance(pool, Pool)
    assert issubclass(pool.connection_class, Reconnecting)
    assert pool.connection_kwargs["socket_connect_timeout"] == 1.5
    assert pool.connection_kwargs["socket_timeout"] is None
