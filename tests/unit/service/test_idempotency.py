import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from api import app_of, called
from pictures import encode, noise
from queues import eventually, redis_queue
from redis_server import RedisServer, redis_server
from scripted import ScriptedBackend

from service.app import assemble
from service.catalog import Catalog
from service.errors import KeyReused, Unavailable
from service.idempotency import Idempotency
from service.ledger.memory import MemoryLedger
from service.ledger.redis import RedisLedger
from service.settings import Settings

pytestmark = pytest.mark.anyio


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def idempotency(clock: Clock | None = None, capacity: int = 100) -> Idempotency:
    return Idempotency(MemoryLedger(capacity=capacity, ttl_s=60, clock=clock or Clock()))


async def test_a_retry_has_the_same_name() -> None:
    names = idempotency()
    first = await names.naming("me", "key")("picture")
    assert await names.naming("me", "key")("picture") == first
    assert len(first) == 32


async def test_everything_else_has_another() -> None:
    names = idempotency()
    found = [
        await names.naming(caller, key, place)(picture)
        for caller, key, place, picture in (
            ("me", "key", 0, "picture"),
            ("you", "key", 0, "picture"),
            ("me", "other", 0, "picture"),
            ("me", "key", 1, "picture"),
            ("mek", "ey", 0, "picture"),
            ("me", "key1", 0, "other picture"),
        )
    ]
    assert len(set(found)) == len(found)


async def test_a_key_is_for_one_picture() -> None:
    names = idempotency()
    await names.naming("me", "key")("picture")
    with pytest.raises(KeyReused):
        await names.naming("me", "key")("another")
    await names.naming("you", "key")("another")


async def test_it_is_forgotten_after_a_while() -> None:
    clock = Clock()
    names = idempotency(clock)
    await names.naming("me", "key")("picture")
    clock.now = 59.9
    with pytest.raises(KeyReused):
        await names.naming("me", "key")("another")
    clock.now = 60.1
    await names.naming("me", "key")("another")


async def test_the_ledger_is_bounded() -> None:
    ledger = MemoryLedger(capacity=3, ttl_s=60, clock=Clock())
    for number in range(10):
        assert await ledger.first(str(number), "a") == "a"
    assert len(ledger._pages) == 3
    assert await ledger.first("9", "b") == "a"
    assert await ledger.first("0", "b") == "b"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def redis_ledger(redis: RedisServer, ttl_s: float = 60.0) -> RedisLedger:
    return RedisLedger(redis.url, prefix="test:", ttl_s=ttl_s, timeout_s=10)


async def test_a_ledger_in_redis(redis: RedisServer) -> None:
    ledger, other = redis_ledger(redis), redis_ledger(redis, ttl_s=1.0)
    said = await asyncio.gather(*(ledger.first("a", str(number)) for number in range(20)))
    assert len(set(said)) == 1
    assert await other.first("a", "x") == said[0]
    assert await other.first("b", "x") == "x"
    assert 0 < redis.client.pttl("test:b") <= 1000
    await asyncio.sleep(1.1)
    assert await ledger.first("b", "y") == "y"
    await ledger.close()
    await other.close()


async def test_a_ledger_out_of_reach() -> None:
    ledger = RedisLedger("redis://127.0.0.1:1/0", prefix="", ttl_s=60, timeout_s=1)
    with pytest.raises(Unavailable, match="what remembers Idempotency-Keys is out of reach"):
        await ledger.first("a", "x")
    await ledger.close()


async def test_a_ledger_without_room(redis: RedisServer) -> None:
    """What it does not remember, it does not let pass."""
    ledger = redis_ledger(redis)
    redis.client.config_set("maxmemory", "1")
    try:
        with pytest.raises(Unavailable):
            await ledger.first("full", "x")
    finally:
        redis.client.config_set("maxmemory", "0")
    assert await ledger.first("full", "y") == "y"
    await ledger.close()


async def test_a_retry_at_another_gateway(redis: RedisServer, catalog: Catalog, scripted: ScriptedBackend) -> None:
    """While the first is in flight, and when it has long been answered: one job, one call of the backend."""
    picture, other = encode(noise(64, 64) // 2, "PNG"), encode(noise(64, 64) // 3, "PNG")
    scripted.call_s = 0.4
    settings = Settings()
    async with AsyncExitStack() as stack:
        clients = []
        for backend in (scripted, None):
            service = assemble(settings, catalog, redis_queue(redis, prefix="retry"), backend)
            await stack.enter_async_context(service.running())
            ledger = redis_ledger(redis)
            stack.push_async_callback(ledger.close)
            app = app_of(service, ledger=ledger)
            clients.append(await stack.enter_async_context(called(app)))

        async def ask(gateway: int, data: bytes) -> tuple[int, str]:
            headers = {"Content-Type": "image/png", "Idempotency-Key": "abc"}
            answer = await clients[gateway].post("/v1/complexity", content=data, headers=headers)
            return answer.status_code, str(
                answer.json().get("id", answer.json()["type"] if not answer.is_success else "")
            )

        await eventually(lambda: redis.client.zcard("{retry}:workers"))
        first = asyncio.create_task(ask(0, picture))
        await eventually(lambda: scripted.calls)
        retry = await ask(1, picture)
        assert retry == await first == await ask(1, picture)
        assert retry[0] == 200
        assert await ask(1, other) == (422, "urn:clicv2:problem:idempotency-key-reused")
        assert len(scripted.calls) == 1
