"""Both stores, and what is kept in them; Redis is a real one."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from queues import eventually
from redis_server import RedisServer, redis_server

from clicv2.contract import Manifest
from service.cache.memory import OVERHEAD_BYTES, MemoryStore
from service.cache.protocol import Store
from service.cache.redis import OVERHEAD_BYTES as REDIS_OVERHEAD_BYTES
from service.cache.redis import RedisStore
from service.cache.results import Facts, Result, ResultCache, decode, digest, encode, entry_bytes, key
from service.prediction import Prediction
from service.queue.protocol import Failure, Reason
from service.queue.wire import WireError, encode_outcome

pytestmark = pytest.mark.anyio

KEYS = [hashlib.sha256(bytes([n])).digest() for n in range(256)]
CONTENT = hashlib.sha256(b"a picture").hexdigest()
# Nobody waits here: what is slow is the machine.
PATIENT_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(shared: RedisServer) -> RedisServer:
    """An empty Redis."""
    shared.client.flushall()
    return shared


@asynccontextmanager
async def redis_store(
    server: RedisServer,
    *,
    prefix: str = "clicv2",
    slots: int = 1 << 20,
    ttl_s: float = 60.0,
    timeout_s: float = PATIENT_S,
    pause_s: float = 0.05,
    failures: list[None] | None = None,
) -> AsyncIterator[RedisStore]:
    counted: list[None] = [] if failures is None else failures
    store = RedisStore(
        server.url,
        prefix=prefix,
        slots=slots,
        ttl_s=ttl_s,
        timeout_s=timeout_s,
        pause_s=pause_s,
        on_failure=lambda: counted.append(None),
    )
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore(max_bytes=1 << 20, ttl_s=60)
        return
    async with redis_store(request.getfixturevalue("redis")) as store:
        yield store


async def put(store: Store, at: bytes, value: bytes) -> None:
    """And wait until it is there."""
    store.put(at, value)
    async with asyncio.timeout(PATIENT_S):
        while await store.get(at) != value:  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0.002)


def result(manifest: Manifest, score: float = 0.25) -> Result:
    random = np.random.default_rng(0)
    heatmap = random.normal(size=manifest.grid).astype(np.float32)
    embedding = random.normal(size=manifest.embedding_size).astype(np.float32)
    return Result(Facts(640, 480, "JPEG", 1), Prediction(manifest.version, score, 0.5, heatmap, embedding))


async def test_a_value_is_found_again(store: Store) -> None:
    assert await store.get(KEYS[0]) is None
    await put(store, KEYS[0], b"zero")
    await put(store, KEYS[1], b"one")
    assert await store.get(KEYS[0]) == b"zero"
    await put(store, KEYS[0], b"another")
    assert await store.get(KEYS[1]) == b"one"
    assert await store.get(KEYS[2]) is None


async def test_memory_is_bounded_and_forgets_the_least_used() -> None:
    store = MemoryStore(max_bytes=3 * (OVERHEAD_BYTES + 10), ttl_s=60)
    for n in range(3):
        store.put(KEYS[n], bytes(10))
    await store.get(KEYS[0])
    store.put(KEYS[3], bytes(10))
    assert [n for n in range(4) if await store.get(KEYS[n]) is not None] == [0, 2, 3]


async def test_memory_does_not_take_what_never_fits() -> None:
    store = MemoryStore(max_bytes=OVERHEAD_BYTES + 10, ttl_s=60)
    store.put(KEYS[0], bytes(10))
    store.put(KEYS[1], bytes(11))
    assert await store.get(KEYS[0]) == bytes(10)
    assert await store.get(KEYS[1]) is None


async def test_memory_forgets_with_time_however_often_it_is_asked() -> None:
    clock = Clock()
    store = MemoryStore(max_bytes=1 << 20, ttl_s=60, clock=clock)
    store.put(KEYS[0], b"zero")
    clock.now = 59
    assert await store.get(KEYS[0]) == b"zero"
    clock.now = 61
    assert await store.get(KEYS[0]) is None


async def test_redis_is_bounded_by_its_slots(redis: RedisServer) -> None:
    async with redis_store(redis, slots=16) as store:
        for n, at in enumerate(KEYS):
            await put(store, at, b"%d" % n)
        assert redis.client.dbsize() <= 16
        found = {at: await store.get(at) for at in KEYS}
    kept = {at: value for at, value in found.items() if value is not None}
    assert len(kept) == redis.client.dbsize()  # the last of each slot, and never another's value
    assert all(value == b"%d" % KEYS.index(at) for at, value in kept.items())


async def test_redis_forgets_with_time(redis: RedisServer) -> None:
    async with redis_store(redis, ttl_s=60) as store:
        await put(store, KEYS[0], b"zero")
        (name,) = redis.client.keys()
        assert name.startswith(b"{clicv2}:cache:")
        assert 50_000 < redis.client.pttl(name) <= 60_000
        await store.get(KEYS[0])
        redis.client.pexpire(name, 1)
        await asyncio.sleep(0.02)
        assert await store.get(KEYS[0]) is None


async def test_gateways_share_it_and_other_services_do_not(redis: RedisServer) -> None:
    async with redis_store(redis) as one, redis_store(redis) as two, redis_store(redis, prefix="other") as other:
        await put(one, KEYS[0], b"zero")
        assert await two.get(KEYS[0]) == b"zero"
        assert await other.get(KEYS[0]) is None


async def test_what_an_entry_costs_redis(redis: RedisServer, manifest: Manifest) -> None:
    async with redis_store(redis) as store:
        value = encode(result(manifest))
        await put(store, KEYS[0], value)
        (name,) = redis.client.keys()
        assert redis.client.memory_usage(name) <= entry_bytes(manifest) + REDIS_OVERHEAD_BYTES


async def test_a_redis_that_was_never_there(redis: RedisServer) -> None:
    failures: list[None] = []
    store = RedisStore("redis://127.0.0.1:1/0", slots=16, ttl_s=60, on_failure=lambda: failures.append(None))
    try:
        assert await store.get(KEYS[0]) is None
        assert store.resting
        store.put(KEYS[0], b"zero")
        assert await store.get(KEYS[0]) is None
        assert len(failures) == 1  # the second nobody asked
    finally:
        await store.close()


async def test_redis_dies_and_comes_back(redis: RedisServer) -> None:
    failures: list[None] = []
    async with redis_store(redis, failures=failures) as store:
        await put(store, KEYS[0], b"zero")
        redis.kill()
        try:
            assert await store.get(KEYS[0]) is None
            assert store.resting
            await eventually(lambda: len(failures) >= 3)  # it is asked again, by nobody's request
        finally:
            redis.start()
        await eventually(lambda: not store.resting)
        await put(store, KEYS[1], b"one")


async def test_a_redis_that_hangs_keeps_one_waiting_and_not_the_next(redis: RedisServer) -> None:
    async with redis_store(redis, timeout_s=0.2, pause_s=60) as store:
        await put(store, KEYS[0], b"zero")
        redis.pause()
        try:
            assert await store.get(KEYS[0]) is None
            assert store.resting
            started = asyncio.get_running_loop().time()
            for _ in range(1000):
                assert await store.get(KEYS[0]) is None
                store.put(KEYS[0], b"zero")
            assert asyncio.get_running_loop().time() - started < 100  # 1000 waits would be 200 s
        finally:
            redis.resume()


async def test_a_full_redis_is_a_cache_that_is_off(redis: RedisServer) -> None:
    async with redis_store(redis) as store:
        await put(store, KEYS[0], b"zero")
        redis.client.config_set("maxmemory", 1)
        try:
            store.put(KEYS[1], b"one")
            await eventually(lambda: store.resting)
            assert await store.get(KEYS[0]) is None
        finally:
            redis.client.config_set("maxmemory", 0)
        await eventually(lambda: not store.resting)
        assert await store.get(KEYS[0]) == b"zero"


async def test_what_redis_must_not_say_is_a_failure_too(redis: RedisServer) -> None:
    """Somebody else's key, or a password that we do not have."""
    async with redis_store(redis, slots=1) as store:
        redis.client.rpush("{clicv2}:cache:0", "a list")
        assert await store.get(KEYS[0]) is None
        redis.client.config_set("requirepass", "secret")
        try:
            async with redis_store(redis, failures=(failures := [])) as stranger:
                assert await stranger.get(KEYS[0]) is None
                assert stranger.resting
                assert failures
        finally:
            redis.client.config_set("requirepass", "")


async def test_what_is_still_to_be_kept_is_kept_before_the_end(redis: RedisServer) -> None:
    async with redis_store(redis) as store:
        for at in KEYS:
            store.put(at, b"value")
    assert redis.client.dbsize() == len(KEYS)


async def test_a_result_is_found_again(store: Store, manifest: Manifest) -> None:
    cache = ResultCache(store)
    assert await cache.find(CONTENT, manifest) is None
    kept = result(manifest)
    cache.keep(CONTENT, manifest, kept)
    async with asyncio.timeout(PATIENT_S):
        while not (found := await cache.find(CONTENT, manifest)):  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.002)
    assert found.facts == kept.facts
    assert (found.prediction.version, found.prediction.score, found.prediction.entropy) == (manifest.version, 0.25, 0.5)
    np.testing.assert_array_equal(found.prediction.heatmap, kept.prediction.heatmap)
    np.testing.assert_array_equal(found.prediction.embedding, kept.prediction.embedding)


async def test_a_version_has_results_of_its_own_and_a_rollback_finds_the_old_ones(manifest: Manifest) -> None:
    cache = ResultCache(MemoryStore(max_bytes=1 << 20, ttl_s=60))
    newer = replace(manifest, version=manifest.version + 1)
    again = replace(manifest, sha256="0" * 64)
    otherwise = replace(manifest, fingerprint="0" * 16)
    cache.keep(CONTENT, manifest, result(manifest, 0.25))
    for other in (newer, again, otherwise, replace(manifest, name="other")):
        assert await cache.find(CONTENT, other) is None
    cache.keep(CONTENT, newer, result(newer, 0.75))
    for of, score in ((manifest, 0.25), (newer, 0.75), (manifest, 0.25)):
        found = await cache.find(CONTENT, of)
        assert found
        assert found.prediction.score == score


@pytest.mark.parametrize("cut", [0, 1, 10, 20, 30, 100])
async def test_what_cannot_be_read_is_not_there(manifest: Manifest, cut: int) -> None:
    store = MemoryStore(max_bytes=1 << 20, ttl_s=60)
    store.put(key(CONTENT, manifest), encode(result(manifest))[:cut])
    assert await ResultCache(store).find(CONTENT, manifest) is None


async def test_what_says_another_version_is_not_believed(manifest: Manifest) -> None:
    store = MemoryStore(max_bytes=1 << 20, ttl_s=60)
    store.put(key(CONTENT, manifest), encode(result(replace(manifest, version=7))))
    assert await ResultCache(store).find(CONTENT, manifest) is None


def test_only_answers_can_be_read(manifest: Manifest) -> None:
    good = encode(result(manifest))
    head = good[: good.index(b"CA")]
    for bad in (
        b"",
        b"XX" + good[2:],
        good[:2] + bytes([good[2] + 1]) + good[3:],
        good + b"more",
        head + encode_outcome(Failure(Reason.DEAD, "no")),
        head[:-4] + b"\xff\xff\xff\xff" + good[len(head) :],
    ):
        with pytest.raises(WireError):
            decode(bad)
    assert decode(good).facts == Facts(640, 480, "JPEG", 1)


def test_a_value_is_as_large_as_stated(manifest: Manifest) -> None:
    assert entry_bytes(manifest) - 60 < len(encode(result(manifest))) <= entry_bytes(manifest)


@pytest.mark.parametrize("size", [0, 1, 128 << 10, (128 << 10) + 1, 1 << 20])
async def test_digest(size: int) -> None:
    assert await digest(bytes(size)) == hashlib.sha256(bytes(size)).hexdigest()
