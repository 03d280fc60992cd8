"""What only a queue between processes can get wrong, on a real Redis; the rest is in test_queue.py."""

import asyncio
import random
import time
from contextlib import AsyncExitStack, suppress

import pytest
from queues import (
    CLIC,
    LEASE_S,
    LONG_LEASE_S,
    Ends,
    answer,
    closing,
    eventually,
    insist,
    listening,
    new_job,
    numbered,
    reason,
    redis_queue,
    running,
    score,
    work,
)
from redis_server import RedisServer

from service.errors import NoWorker
from service.queue import redis as module
from service.queue.keys import GROUP, Keys
from service.queue.protocol import Census, Failure, Job, Reason
from service.queue.redis import RedisQueue

pytestmark = pytest.mark.anyio


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
        outcomes = await asyncio.gather(*(insist(gateways[value % 2], job) for value, job in enumerate(jobs)))
        assert [score(outcome) for outcome in outcomes] == list(range(500))
        assert redis.client.xlen(CLIC.jobs) == 0
        await eventually(lambda: not any(redis.client.xlen(key) for key in redis.client.keys(CLIC.answers("*"))))
    # Back to the baseline: the stream with its group, and who was there; results go by themselves.
    await eventually(lambda: not redis.client.keys(CLIC.result("*")))
    assert {key.decode() for key in redis.client.scan_iter()} <= {CLIC.jobs, CLIC.workers}
    assert redis.client.xpending(CLIC.jobs, GROUP)["pending"] == 0
    assert redis.client.memory_usage(CLIC.jobs) < 10_000


async def test_an_entry_of_a_cancelled_lease_is_stranded_for_a_lease_at_most(brief: Ends) -> None:
    for attempt in range(10):
        leasing = asyncio.create_task(brief.worker.lease(1))
        await asyncio.sleep(random.uniform(0, 0.01))
        (job,) = await brief.admit_new(f"{attempt}")
        leasing.cancel()
        with suppress(asyncio.CancelledError):
            (lease,) = await leasing
            await brief.worker.finish(lease, answer())
            continue
        (lease,) = await brief.other_worker.lease(1)
        assert lease.job.id == job.id
        await brief.other_worker.finish(lease, answer())


async def test_a_zombie_adds_nothing_to_what_its_successor_said(redis: RedisServer, brief: Ends) -> None:
    (job,) = await brief.admit_new("a")
    (lost,) = await brief.worker.lease(1)
    (lease,) = await brief.other_worker.lease(1)
    assert await brief.other_worker.finish(lease, answer(0.75))
    assert not await brief.worker.finish(lost, answer(0.25))
    assert score(await brief.gateway.result(job)) == 0.75
    await brief.admit(again := new_job("a"))
    assert score(await brief.gateway.result(again)) == 0.75


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


async def test_clocks_of_hosts_are_never_compared(redis: RedisServer) -> None:
    def end(offset_s: float) -> RedisQueue:
        return RedisQueue(
            redis.url,
            capacity=5,
            lease_s=LONG_LEASE_S,
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
    redis: RedisServer, brief: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with closing(*(redis_queue(redis, prefix=CLIC.prefix, name=name) for name in ("gone", "holding"))) as queues:
        gone, holding = queues
        await gone.lease(1, time.monotonic())
        await brief.admit_new("a")
        assert await holding.lease(1)
    monkeypatch.setattr(module, "_CONSUMER_MS", 50)
    await asyncio.sleep(0.1)
    await brief.worker.present(True)
    names = {consumer["name"] for consumer in redis.client.xinfo_consumers(CLIC.jobs, GROUP)}
    assert b"gone" not in names
    assert b"holding" in names, "its leases would go with it"
    (lease,) = await brief.worker.lease(1)
    assert lease.job.attempt == 2


async def test_a_worker_that_says_nothing_is_taken_to_be_gone(brief: Ends) -> None:
    await brief.worker.present(True)
    await asyncio.sleep(1.2 * LEASE_S)
    with pytest.raises(NoWorker):
        await brief.gateway.admit(new_job("a"))


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


async def test_a_worker_that_knows_of_no_other_job_waits_for_the_bell(redis: RedisServer) -> None:
    """Redis counts its scripts: for each job of a calm day one to admit, one to lease, one to finish."""
    gateway, worker = (redis_queue(redis, prefix="clicv2", lease_s=60.0) for _ in range(2))

    def scripts() -> int:
        return int(redis.client.info("commandstats")["cmdstat_evalsha"]["calls"])

    async def lease_and_finish() -> None:
        [lease] = await worker.lease(1)
        await worker.finish(lease, answer())

    async def answered() -> None:
        working = asyncio.create_task(lease_and_finish())
        await asyncio.sleep(0.05)  # it waits before there is a job
        job = numbered(0)
        await gateway.admit(job)
        await asyncio.gather(working, gateway.result(job))

    async with closing(gateway, worker), listening(gateway):
        await worker.present(True)
        await answered()
        before = scripts()
        for _ in range(10):
            await answered()
        assert scripts() - before == 30


async def test_who_has_not_heard_of_a_job_by_the_bell_finds_it(ends: Ends) -> None:
    """Two wait and a worker takes one: nothing rings for the other. And who has no time to wait asks."""
    jobs = [numbered(0), numbered(1), numbered(2)]
    await ends.admit(*jobs[:2])
    started = time.monotonic()
    for job in jobs[:2]:
        [lease] = await ends.worker.lease(1, time.monotonic() + 60)
        assert lease.job.id == job.id
    await ends.admit(jobs[2])
    [lease] = await ends.worker.lease(1, time.monotonic() - 1)
    assert lease.job.id == jobs[2].id
    assert await ends.worker.lease(1, time.monotonic() - 1) == []
    assert time.monotonic() - started < 30


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
