"""What only a queue between processes can get wrong, on a real Redis; the rest is in test_queue.py."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from secrets import token_hex

import numpy as np
import pytest
import redis as redis_py
from queues import (
    LEASE_S,
    Ends,
    answer,
    closing,
    eventually,
    listening,
    new_job,
    reason,
    redis_ends,
    redis_queue,
    running,
    score,
)
from redis_server import RedisServer, redis_server

from service.errors import NoWorker, Overloaded, Unavailable
from service.queue import redis as module
from service.queue import wire
from service.queue.keys import GROUP, Keys
from service.queue.link import Link, _Reconnecting
from service.queue.protocol import Answer, Census, Failure, Job, Outcome, Queue, Reason
from service.queue.redis import RedisQueue

pytestmark = pytest.mark.anyio

CLIC = Keys("clicv2")


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(shared: RedisServer) -> RedisServer:
    """An empty Redis."""
    shared.client.flushall()
    return shared


@pytest.fixture
async def ends(redis: RedisServer) -> AsyncIterator[Ends]:
    async with redis_ends(redis, prefix=CLIC.prefix, max_attempts=2) as ends:
        yield ends


async def work(worker: Queue, at_most: int = 8) -> None:
    """Answer each job with the number that its pixels spell."""
    presence = asyncio.create_task(present(worker))
    try:
        while True:
            leases = await worker.lease(at_most)
            await asyncio.sleep(random.uniform(0, 0.01))
            await asyncio.gather(*(worker.finish(lease, answer(number(lease.job))) for lease in leases))
    finally:
        presence.cancel()


async def present(worker: Queue) -> None:
    while True:
        await worker.present(True)
        await asyncio.sleep(LEASE_S / 3)


def numbered(value: int, deadline_s: float = 60.0) -> Job:
    return new_job(token_hex(8), deadline_s, np.array([[[value >> 8, value & 255, 0]]], np.uint8))


def number(job: Job) -> float:
    high, low, _ = job.pixels[0, 0].tolist()
    return float(high << 8 | low)


async def ask(gateway: Queue, job: Job) -> Outcome:
    """As a client that comes again while the service cannot take its job."""
    while True:
        try:
            await gateway.admit(job)
            return await gateway.result(job)
        except (Unavailable, Overloaded):
            await asyncio.sleep(0.05)


async def test_two_gateways_and_three_workers_answer_everybody_once(redis: RedisServer) -> None:
    def end() -> RedisQueue:
        return redis_queue(redis, prefix="clicv2", capacity=100, result_ttl_s=1.0)

    gateways, workers = [end(), end()], [end(), end(), end()]
    jobs = [numbered(value) for value in range(500)]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(closing(*gateways, *workers))
        for gateway in gateways:
            await stack.enter_async_context(listening(gateway))
        for worker in workers:
            await stack.enter_async_context(running(work(worker)))
        outcomes = await asyncio.gather(*(ask(gateways[value % 2], job) for value, job in enumerate(jobs)))
        assert [score(outcome) for outcome in outcomes] == list(range(500))
        assert redis.client.xlen(CLIC.jobs) == 0
        await eventually(lambda: not any(redis.client.xlen(key) for key in redis.client.keys(CLIC.answers("*"))))
    # Back to the baseline: the stream with its group, and who was there; results go by themselves.
    await eventually(lambda: not redis.client.keys(CLIC.result("*")))
    assert {key.decode() for key in redis.client.scan_iter()} <= {CLIC.jobs, CLIC.workers}
    assert redis.client.xpending(CLIC.jobs, GROUP)["pending"] == 0
    assert redis.client.memory_usage(CLIC.jobs) < 10_000


async def test_an_entry_of_a_cancelled_lease_is_stranded_for_a_lease_at_most(ends: Ends) -> None:
    for attempt in range(10):
        leasing = asyncio.create_task(ends.worker.lease(1))
        await asyncio.sleep(random.uniform(0, 0.01))
        (job,) = await ends.admit_new(f"{attempt}")
        leasing.cancel()
        with suppress(asyncio.CancelledError):
            (lease,) = await leasing
            await ends.worker.finish(lease, answer())
            continue
        (lease,) = await ends.other_worker.lease(1)
        assert lease.job.id == job.id
        await ends.other_worker.finish(lease, answer())


async def test_a_zombie_adds_nothing_to_what_its_successor_said(redis: RedisServer, ends: Ends) -> None:
    (job,) = await ends.admit_new("a")
    (lost,) = await ends.worker.lease(1)
    (lease,) = await ends.other_worker.lease(1)
    assert await ends.other_worker.finish(lease, answer(0.75))
    assert not await ends.worker.finish(lost, answer(0.25))
    assert score(await ends.gateway.result(job)) == 0.75
    await ends.admit(again := new_job("a"))
    assert score(await ends.gateway.result(again)) == 0.75


async def test_who_asks_again_gets_what_was_found(redis: RedisServer, ends: Ends) -> None:
    found = {"answered": answer(0.25), "dead": Failure(Reason.DEAD, "indigestible")}
    for name, outcome in found.items():
        await ends.admit_new(name)
        (lease,) = await ends.worker.lease(1)
        await ends.worker.finish(lease, outcome)
        again = new_job(name)
        await ends.admit(again)
        repeated = await ends.gateway.result(again)
        assert repeated == outcome if isinstance(outcome, Failure) else score(repeated) == 0.25
    assert redis.client.xlen(CLIC.jobs) == 0
    assert 0 < redis.client.pttl(CLIC.result("answered")) <= 30_000 * 2


async def test_who_asks_again_after_bad_luck_gets_another_try(ends: Ends) -> None:
    for why in (Reason.UNAVAILABLE, Reason.EXPIRED):
        (first,) = await ends.admit_new("a")
        (lease,) = await ends.worker.lease(1)
        await ends.worker.finish(lease, Failure(why, "bad luck"))
        assert reason(await ends.gateway.result(first)) is why
    (again,) = await ends.admit_new("a")
    (lease,) = await ends.worker.lease(1)
    await ends.worker.finish(lease, answer(0.25))
    assert score(await ends.gateway.result(again)) == 0.25


async def test_a_job_whose_gateway_died_is_joined_through_another(redis: RedisServer, ends: Ends) -> None:
    async with closing(redis_queue(redis, prefix=CLIC.prefix)) as (dead,):
        await ends.worker.present(True)
        await dead.admit(new_job("a"))  # and never hears of it again
        (job,) = await ends.admit_new("a")
        assert redis.client.xlen(CLIC.jobs) == 1
        (lease,) = await ends.worker.lease(5)
        await ends.worker.finish(lease, answer(0.25))
        assert score(await ends.gateway.result(job)) == 0.25
        (unread,) = set(redis.client.keys(CLIC.answers("*"))) - {CLIC.answers("gateway").encode()}
        assert redis.client.xlen(unread) == 1
        assert 0 < redis.client.pttl(unread) <= module._ANSWERS_MS, "what a dead gateway will not read goes by itself"


async def test_an_admission_whose_reply_is_lost_can_be_repeated(redis: RedisServer, ends: Ends) -> None:
    async with closing(redis_queue(redis, prefix=CLIC.prefix, name="hasty", timeout_s=0.05)) as (hasty,):
        await ends.worker.present(True)
        await hasty.depth()  # connected, so that what is sent now waits in the socket of the server
        redis.pause()
        lost = new_job("a")
        with pytest.raises(Unavailable):
            await hasty.admit(lost)
        redis.resume()
        await ends.admit(job := new_job("a"))
        (lease,) = await ends.worker.lease(5)
        await ends.worker.finish(lease, answer(0.25))
        assert score(await ends.gateway.result(job)) == 0.25


async def test_pixels_of_an_admission_that_failed_go_and_those_of_others_stay(redis: RedisServer, ends: Ends) -> None:
    gateway = ends.gateway
    assert isinstance(gateway, RedisQueue)
    first, second = [(await ends.admit_new("a"))[0] for _ in range(2)]
    redis.client.set(CLIC.pixels("gateway/99"), b"came without a job")
    await gateway._leave("a", "gateway/99")
    await gateway.cancel(first)
    assert len(redis.client.keys(CLIC.pixels("*"))) == 1
    (lease,) = await ends.worker.lease(1)
    assert lease.job.pixels.shape == second.pixels.shape
    await gateway.cancel(second)
    assert not redis.client.keys(CLIC.pixels("*"))


async def test_a_finish_whose_reply_is_lost_is_no_late_one(ends: Ends) -> None:
    for outcome in (answer(), Failure(Reason.UNAVAILABLE, "no power")):
        await ends.admit_new("a" if isinstance(outcome, Answer) else "b")
        (lease,) = await ends.worker.lease(1)
        assert await ends.worker.finish(lease, outcome)
        assert await ends.worker.finish(lease, outcome)


async def test_a_killed_redis_loses_nothing_and_is_missed_at_once() -> None:
    with redis_server() as redis:
        # The first second after it starts is what `everysec` has to write.
        gateways = [redis_queue(redis, prefix="clicv2", capacity=600, timeout_s=0.2) for _ in range(2)]
        workers = [redis_queue(redis, prefix="clicv2") for _ in range(2)]
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(closing(*gateways, *workers))
            for gateway in gateways:
                await stack.enter_async_context(listening(gateway))
            for worker in workers:
                await stack.enter_async_context(running(present(worker)))
            await eventually(lambda: redis.client.zcard(CLIC.workers) == 2)
            jobs = [numbered(value) for value in range(200)]
            for value, job in enumerate(jobs):
                await gateways[value % 2].admit(job)
            leases = await workers[0].lease(20)
            await asyncio.gather(*(workers[0].finish(lease, answer(number(lease.job))) for lease in leases[:10]))
            redis.kill()
            started = time.monotonic()
            with pytest.raises(Unavailable):
                await gateways[0].admit(numbered(1))
            with pytest.raises(Unavailable):
                await gateways[0].depth()
            assert time.monotonic() - started < 5
            assert await workers[0].renew(leases[10:]) == leases[10:], "who cannot ask keeps what it has"
            assert not await workers[1].lease(1, time.monotonic() + 0.2)
            finishing = asyncio.gather(
                *(workers[0].finish(lease, answer(number(lease.job))) for lease in leases[10:15])
            )
            await asyncio.sleep(0.2)
            redis.start()
            await finishing
            for worker in workers:
                await stack.enter_async_context(running(work(worker)))
            outcomes = await asyncio.gather(*(gateways[value % 2].result(job) for value, job in enumerate(jobs)))
            assert [score(outcome) for outcome in outcomes] == list(range(200))
            assert score(await ask(gateways[0], numbered(7))) == 7
            assert redis.client.xlen(CLIC.jobs) == 0


async def test_a_redis_that_hangs_is_missed_at_once(redis: RedisServer, ends: Ends) -> None:
    async with closing(redis_queue(redis, prefix=CLIC.prefix, timeout_s=0.2)) as (hasty,):
        await ends.worker.present(True)
        (job,) = await ends.admit_new("a")
        redis.pause()
        try:
            started = time.monotonic()
            for call in (hasty.admit(new_job("b")), hasty.depth()):
                with pytest.raises(Unavailable):
                    await call
            await hasty.cancel(new_job("c"))
            await hasty.present(True)
            assert time.monotonic() - started < 5
        finally:
            redis.resume()
        (lease,) = await ends.worker.lease(1)
        await ends.worker.finish(lease, answer(0.25))
        assert score(await ends.gateway.result(job)) == 0.25
        assert await hasty.depth() >= 0


async def test_the_deadline_needs_no_redis(redis: RedisServer, ends: Ends) -> None:
    await ends.admit(job := new_job("a", deadline_s=0.3))
    redis.pause()
    try:
        assert reason(await ends.gateway.result(job)) is Reason.EXPIRED
        assert time.monotonic() - job.deadline < 5
    finally:
        redis.resume()


async def test_a_full_redis_refuses_jobs_and_lets_those_it_has_be_finished(redis: RedisServer, ends: Ends) -> None:
    jobs = await ends.admit_new("a", "b", "c", "d")
    leases = await ends.worker.lease(2)
    redis.client.config_set("maxmemory", "1mb")  # less than it has
    try:
        with pytest.raises(Unavailable):
            await ends.gateway.admit(new_job("e"))
        await ends.worker.present(True)
        assert await ends.worker.renew(leases) == leases
        leases += await ends.worker.lease(2)
        assert len(leases) == 4
        for lease in leases:
            assert await ends.worker.finish(lease, answer(0.25))
        assert [score(await ends.gateway.result(job)) for job in jobs] == [0.25] * 4
    finally:
        redis.client.config_set("maxmemory", "0")
    (job,) = await ends.admit_new("e")
    (lease,) = await ends.worker.lease(1)
    assert await ends.worker.finish(lease, Failure(Reason.DEAD, "indigestible"))
    assert reason(await ends.gateway.result(job)) is Reason.DEAD


async def test_a_full_redis_still_buries_and_passes_on(redis: RedisServer, ends: Ends) -> None:
    await ends.admit_new("a", "b")
    assert len(await ends.worker.lease(2)) == 2
    redis.client.config_set("maxmemory", "1mb")
    try:
        (one, two) = await ends.other_worker.lease(2)
        assert await ends.other_worker.finish(one, Failure(Reason.DEAD, "indigestible"))
        assert not await ends.other_worker.lease(1, time.monotonic() + 2 * LEASE_S), "two attempts are all"
        assert two.job.attempt == 2
        assert redis.client.xlen(CLIC.dead) == 2
    finally:
        redis.client.config_set("maxmemory", "0")


@asynccontextmanager
async def replica(redis: RedisServer) -> AsyncIterator[None]:
    redis.client.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        redis.client.replicaof("no", "one")


async def test_a_redis_that_became_a_replica_is_unavailable(redis: RedisServer, ends: Ends) -> None:
    (job,) = await ends.admit_new("a")
    async with replica(redis):
        with pytest.raises(Unavailable):
            await ends.gateway.admit(new_job("b"))
        leasing = asyncio.create_task(ends.worker.lease(1))
        await asyncio.sleep(0.2)
        assert not leasing.done()
    (lease,) = await leasing
    await ends.worker.finish(lease, answer(0.25))
    assert score(await ends.gateway.result(job)) == 0.25


async def test_a_redis_that_is_busy_with_a_script_is_unavailable(redis: RedisServer, ends: Ends) -> None:
    await ends.worker.present(True)
    redis.client.config_set("lua-time-limit", "1")

    def spin() -> None:
        with suppress(redis_py.ResponseError), redis_py.Redis(port=redis.port, protocol=2) as client:
            client.eval("while true do end", 0)

    spinning = threading.Thread(target=spin)
    spinning.start()
    await asyncio.sleep(0.2)
    try:
        with pytest.raises(Unavailable):
            await ends.gateway.admit(new_job("a"))
    finally:
        redis.client.script_kill()
        spinning.join()
        redis.client.config_set("lua-time-limit", "5000")
    await ends.admit_new("a")


async def test_scripts_that_redis_forgot_are_loaded_again(redis: RedisServer, ends: Ends) -> None:
    for name in ("a", "b"):
        (job,) = await ends.admit_new(name)
        redis.client.script_flush()
        (lease,) = await ends.worker.lease(1)
        await ends.worker.finish(lease, answer(0.25))
        assert score(await ends.gateway.result(job)) == 0.25


async def test_after_all_is_lost_it_begins_anew(redis: RedisServer, ends: Ends) -> None:
    await ends.admit(lost := new_job("a", deadline_s=1.0))
    await ends.admit_new("b")
    (lease, _) = await ends.worker.lease(2)
    leasing = asyncio.create_task(ends.other_worker.lease(1))
    await asyncio.sleep(0.05)
    redis.client.flushall()
    assert not await ends.worker.renew([lease])
    assert not await ends.worker.finish(lease, answer())
    assert await ends.gateway.depth() == 0
    with pytest.raises(NoWorker):
        await ends.gateway.admit(new_job("c"))
    (job,) = await ends.admit_new("c")
    (lease,) = await leasing
    await ends.other_worker.finish(lease, answer(0.25))
    assert score(await ends.gateway.result(job)) == 0.25
    assert reason(await ends.gateway.result(lost)) is Reason.EXPIRED


async def test_keys_that_somebody_deleted_harm_only_their_job(redis: RedisServer, ends: Ends) -> None:
    await ends.admit_new("no job", "no pixels", "no deadline", "leased")
    *_, leased = await ends.worker.lease(4)
    for name in ("no job", "leased"):
        redis.client.delete(CLIC.job(name))
    for key in redis.client.keys(CLIC.pixels("*")):
        redis.client.delete(key)
    redis.client.zrem(CLIC.deadlines, "no deadline")
    redis.client.zadd(CLIC.deadlines, {"no job": 1})
    assert await ends.worker.finish(leased, answer())
    (job,) = await ends.admit_new("intact")
    async with asyncio.timeout(30):
        while redis.client.xlen(CLIC.jobs):
            for lease in await ends.other_worker.lease(5, time.monotonic() + LEASE_S):
                assert lease.job.id == "intact"
                await ends.other_worker.finish(lease, answer(0.25))
    assert score(await ends.gateway.result(job)) == 0.25
    assert not redis.client.zcard(CLIC.deadlines)


async def test_a_dead_letter_can_be_examined(redis: RedisServer, ends: Ends) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    await ends.admit(new_job("refused", pixels=pixels), new_job("deadly", pixels=pixels))
    refused, _ = await ends.worker.lease(2)
    await ends.worker.finish(refused, Failure(Reason.DEAD, "indigestible"))
    assert (await ends.worker.lease(1))[0].job.attempt == 2
    assert not await ends.worker.lease(1, time.monotonic() + 2 * LEASE_S)
    letters = [fields for _, fields in redis.client.xrange(CLIC.dead)]
    assert [(letter[b"id"], letter[b"attempts"]) for letter in letters] == [(b"refused", b"1"), (b"deadly", b"2")]
    assert letters[0][b"detail"] == b"indigestible"
    assert b"2 attempts" in letters[1][b"detail"]
    for letter in letters:
        assert np.array_equal(wire.decode_pixels(letter[b"pixels"]), pixels)


async def test_dead_letters_are_so_many_at_most(redis: RedisServer) -> None:
    async with closing(
        RedisQueue(redis.url, capacity=50, lease_s=5, max_attempts=2, result_ttl_s=1, dead_letters=3, timeout_s=10)
    ) as (queue,):
        await queue.present(True)
        for value in range(5):
            await queue.admit(new_job(f"{value}"))
            (lease,) = await queue.lease(1)
            await queue.finish(lease, Failure(Reason.DEAD, "indigestible"))
        assert [fields[b"id"] for _, fields in redis.client.xrange(CLIC.dead)] == [b"2", b"3", b"4"]


async def test_a_job_that_cannot_be_read_is_set_aside(
    redis: RedisServer, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ends.worker.present(True)
    job, good = new_job("bad"), new_job("good")
    with monkeypatch.context() as newer:
        newer.setattr(module, "encode_pixels", lambda _: b"CJ\x63")
        await ends.admit(job)
    redis.client.xadd(CLIC.jobs, {"what": "is this"})
    await ends.admit(good)
    (lease,) = await ends.worker.lease(10)
    assert lease.job.id == "good"
    outcome = await ends.gateway.result(job)
    assert isinstance(outcome, Failure)
    assert outcome.reason is Reason.DEAD
    assert "version 99" in outcome.detail
    assert redis.client.xlen(CLIC.jobs) == 1
    assert redis.client.xlen(CLIC.dead) == 1


async def test_an_answer_that_cannot_be_read_is_told_and_harms_nobody_else(redis: RedisServer, ends: Ends) -> None:
    (job,) = await ends.admit_new("a")
    (field,) = [name for name in redis.client.hkeys(CLIC.job("a")) if name not in (b"entry", b"pixels")]
    redis.client.xadd(CLIC.answers("gateway"), {"not": "ours"})
    redis.client.xadd(CLIC.answers("gateway"), {"caller": field, "outcome": b"CA\x63"})
    outcome = await ends.gateway.result(job)
    assert isinstance(outcome, Failure)
    assert outcome.reason is Reason.UNAVAILABLE
    assert "version 99" in outcome.detail
    (after,) = await ends.admit_new("b")
    leases = await ends.worker.lease(2)
    for lease in leases:
        await ends.worker.finish(lease, answer(0.25))
    assert score(await ends.gateway.result(after)) == 0.25


async def test_clocks_of_hosts_are_never_compared(redis: RedisServer) -> None:
    def end(offset_s: float) -> RedisQueue:
        return RedisQueue(
            redis.url,
            capacity=5,
            lease_s=LEASE_S,
            max_attempts=2,
            result_ttl_s=1,
            timeout_s=10,
            clock=lambda: time.monotonic() + offset_s,
        )

    async with closing(end(1e6), end(-1e6)) as (gateway, worker):
        await worker.present(True)
        now = time.monotonic() + 1e6
        await gateway.admit(Job("a", new_job("a").pixels, now + 20, now))
        before = time.monotonic() - 1e6
        (lease,) = await worker.lease(1)
    assert lease.job.deadline <= before + 20 + 0.01, "never later than the truth"
    assert lease.job.deadline > before + 10
    assert before - 10 < lease.job.admitted_at <= before + 0.01


async def test_the_census_counts_what_is_there(redis: RedisServer, ends: Ends) -> None:
    gateway = ends.gateway
    assert isinstance(gateway, RedisQueue)
    assert await gateway.census() == Census(waiting=0, leased=0, dead=0, oldest_s=0.0, workers=0)
    await ends.other_worker.present(True)
    await ends.admit_new("a", "b", "c")
    (lease, _) = await ends.worker.lease(2)
    await ends.worker.finish(lease, Failure(Reason.DEAD, "indigestible"))
    await asyncio.sleep(0.1)
    await ends.worker.present(True)
    await ends.other_worker.present(True)
    census = await gateway.census()
    assert (census.waiting, census.leased, census.dead, census.workers) == (1, 1, 1, 2)
    assert 0.1 <= census.oldest_s < 30


async def test_workers_that_have_gone_are_forgotten(
    redis: RedisServer, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with closing(*(redis_queue(redis, prefix=CLIC.prefix, name=name) for name in ("gone", "holding"))) as queues:
        gone, holding = queues
        await gone.lease(1, time.monotonic())
        await ends.admit_new("a")
        assert await holding.lease(1)
    monkeypatch.setattr(module, "_CONSUMER_MS", 50)
    await asyncio.sleep(0.1)
    await ends.worker.present(True)
    names = {consumer["name"] for consumer in redis.client.xinfo_consumers(CLIC.jobs, GROUP)}
    assert b"gone" not in names
    assert b"holding" in names, "its leases would go with it"
    (lease,) = await ends.worker.lease(1)
    assert lease.job.attempt == 2


async def test_a_worker_that_says_nothing_is_taken_to_be_gone(ends: Ends) -> None:
    await ends.worker.present(True)
    await asyncio.sleep(1.2 * LEASE_S)
    with pytest.raises(NoWorker):
        await ends.gateway.admit(new_job("a"))


async def test_a_caller_that_leaves_during_its_admission_leaves_nothing(redis: RedisServer, ends: Ends) -> None:
    await ends.worker.present(True)
    for value in range(20):
        admitting = asyncio.create_task(ends.gateway.admit(job := new_job(f"{value}", deadline_s=5.0)))
        await asyncio.sleep(random.uniform(0, 0.003))
        admitting.cancel()
        with suppress(asyncio.CancelledError):
            await admitting
            await ends.gateway.cancel(job)  # it was faster
    # At once, or, where leaving overtook the admission on another connection, at the deadline.
    await eventually(lambda: not redis.client.keys(CLIC.job("*")) or time.monotonic() > job.deadline)
    assert not await ends.worker.lease(20, time.monotonic() + 0.1)
    assert redis.client.xlen(CLIC.jobs) == 0


def test_all_keys_share_a_slot() -> None:
    keys = Keys("queue")
    assert {key[: key.index("}") + 1] for key in (*keys.for_scripts, keys.answers("g"), keys.job("j"))} == {"{queue}"}


def test_fences_rise_with_entry_and_attempt() -> None:
    fences = [module._fence(*pair) for pair in [(b"1-0", 1), (b"1-0", 2), (b"1-1", 1), (b"2-0", 1)]]
    assert fences == sorted(set(fences))
    assert module._entry_and_attempt(module._fence(b"1763650000123-18446744073709551615", 7)) == (
        "1763650000123-18446744073709551615",
        7,
    )


async def test_a_line_too_slow_for_the_pixels_costs_no_attempts(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease was granted, but its reply could not be used before it ran out: nobody has begun the job."""
    assert isinstance(ends.worker, RedisQueue)
    intact = ends.worker._link.get
    tries = 0

    async def get(keys: Sequence[bytes]) -> list[bytes | None]:
        nonlocal tries
        tries += 1
        if tries <= 3:
            await asyncio.sleep(1.2 * LEASE_S)
            raise Unavailable("too slow")
        return await intact(keys)

    monkeypatch.setattr(ends.worker._link, "get", get)
    (job,) = await ends.admit_new("a")
    (lease,) = await ends.worker.lease(4)  # there is room to reclaim others, too
    assert (lease.job.id, lease.job.attempt) == (job.id, 1)
    assert await ends.worker.finish(lease, answer())


async def test_a_process_that_was_late_itself_does_not_blame_redis(redis: RedisServer) -> None:
    queue = redis_queue(redis, prefix="clicv2", timeout_s=0.2)
    async with closing(queue):
        await queue.present(True)
        asking = asyncio.create_task(queue.depth())
        await asyncio.sleep(0)  # it asks ...
        time.sleep(0.5)  # noqa: ASYNC251  # ... and nobody looks for the answer
        assert await asking == 0


@pytest.mark.parametrize("url", ["redis://localhost", "rediss://localhost", "unix:///run/redis.sock"])
async def test_no_kind_of_connection_is_left_out_of_those_that_reconnect(url: str) -> None:
    """That they do is in tests/chaos/test_network.py."""
    link = Link(url, (), 0.2)
    assert issubclass(link._redis.connection_pool.connection_class, _Reconnecting)
    await link.close()
