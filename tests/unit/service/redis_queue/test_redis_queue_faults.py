"""The queue between processes while its Redis dies, hangs, is full, forgets, or answers too late."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import redis as redis_py
from queues import (
    CLIC,
    LEASE_S,
    Ends,
    answer,
    closing,
    eventually,
    insist,
    listening,
    new_job,
    number,
    numbered,
    present,
    reason,
    redis_queue,
    running,
    score,
    work,
)
from redis_server import RedisServer, redis_server

from service.errors import NoWorker, Unavailable
from service.queue.keys import GROUP
from service.queue.protocol import Answer, Failure, Reason
from service.queue.redis import RedisQueue

pytestmark = pytest.mark.anyio


async def test_a_killed_redis_loses_nothing_and_is_missed_at_once() -> None:
    with redis_server() as redis:
        # The first second after it starts is what `everysec` has to write.
        gateways = [redis_queue(redis, prefix="clicv2", capacity=600, timeout_s=2) for _ in range(2)]
        workers = [redis_queue(redis, prefix="clicv2", lease_s=4 * LEASE_S) for _ in range(2)]
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
            assert score(await insist(gateways[0], numbered(7))) == 7
            assert redis.client.xlen(CLIC.jobs) == 0


async def test_a_redis_that_hangs_is_missed_at_once(redis: RedisServer, ends: Ends) -> None:
    async with closing(redis_queue(redis, prefix=CLIC.prefix, timeout_s=0.5)) as (hasty,):
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


async def test_a_process_that_was_late_itself_does_not_blame_redis(redis: RedisServer) -> None:
    queue = redis_queue(redis, prefix="clicv2", timeout_s=0.2)
    async with closing(queue):
        await queue.present(True)
        asking = asyncio.create_task(queue.depth())
        await asyncio.sleep(0)  # it asks ...
        time.sleep(0.5)  # noqa: ASYNC251  # ... and nobody looks for the answer
        assert await asking == 0


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


async def test_a_full_redis_still_buries_and_passes_on(redis: RedisServer, brief: Ends) -> None:
    await brief.admit_new("a", "b")
    assert len(await brief.worker.lease(2)) == 2
    redis.client.config_set("maxmemory", "1mb")
    try:
        (one, two) = await brief.other_worker.lease(2)
        assert await brief.other_worker.finish(one, Failure(Reason.DEAD, "indigestible"))
        assert not await brief.other_worker.lease(1, time.monotonic() + 2 * LEASE_S), "two attempts are all"
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


async def test_a_redis_whose_password_was_changed_is_unavailable(
    redis: RedisServer, ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await ends.worker.present(True)
    redis.client.config_set("requirepass", "changed")
    with redis_py.Redis(port=redis.port, protocol=2, password="changed") as owner:  # noqa: S106  # of this test
        owner.client_kill_filter(_type="normal", skipme=True)
        try:
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await ends.gateway.admit(new_job("a"))
        finally:
            owner.config_set("requirepass", "")
    await insist_on_reach(ends)
    lines = [record.getMessage() for record in caplog.records if "the queue is" in record.getMessage()]
    assert any("uthentic" in line for line in lines), "it is not said why"
    assert len(lines) == len(set(lines)), "it is said again and again"
    assert lines[-1] == "the queue is within reach again"


async def insist_on_reach(ends: Ends) -> None:
    """Use it until it has been well for a second."""
    async with asyncio.timeout(20):
        await ends.worker.present(True)
        await asyncio.sleep(1.2)
        await ends.worker.present(True)
        await ends.admit_new("b")


async def test_a_redis_that_is_busy_with_a_script_is_unavailable(redis: RedisServer, ends: Ends) -> None:
    await ends.worker.present(True)
    redis.client.config_set("lua-time-limit", "1")

    def spin() -> None:
        with suppress(redis_py.ResponseError), redis_py.Redis(port=redis.port, protocol=2) as client:
            client.eval("while true do end", 0)

    spinning = threading.Thread(target=spin)
    spinning.start()
    await eventually(lambda: is_busy(redis))
    try:
        with pytest.raises(Unavailable):
            await ends.gateway.admit(new_job("a"))
    finally:
        redis.client.script_kill()
        spinning.join()
        redis.client.config_set("lua-time-limit", "5000")
    await ends.admit_new("a")


def is_busy(redis: RedisServer) -> bool:
    try:
        return not redis.client.ping()
    except redis_py.ResponseError as error:
        return "BUSY" in str(error)


async def test_scripts_that_redis_forgot_are_loaded_again(redis: RedisServer, ends: Ends) -> None:
    for name in ("a", "b"):
        (job,) = await ends.admit_new(name)
        redis.client.script_flush()
        (lease,) = await ends.worker.lease(1)
        await ends.worker.finish(lease, answer(0.25))
        assert score(await ends.gateway.result(job)) == 0.25


async def test_after_all_is_lost_it_begins_anew(redis: RedisServer, ends: Ends) -> None:
    await ends.admit(lost := new_job("a", deadline_s=2.0))
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


async def test_keys_that_somebody_deleted_harm_only_their_job(redis: RedisServer, brief: Ends) -> None:
    await brief.admit_new("no job", "no pixels", "no deadline", "leased")
    *_, leased = await brief.worker.lease(4)
    for name in ("no job", "leased"):
        redis.client.delete(CLIC.job(name))
    for key in redis.client.keys(CLIC.pixels("*")):
        redis.client.delete(key)
    redis.client.zrem(CLIC.deadlines, "no deadline")
    redis.client.zadd(CLIC.deadlines, {"no job": 1})
    assert await brief.worker.finish(leased, answer())
    (job,) = await brief.admit_new("intact")
    async with asyncio.timeout(30):
        while redis.client.xlen(CLIC.jobs):
            for lease in await brief.other_worker.lease(5, time.monotonic() + LEASE_S):
                assert lease.job.id == "intact"
                await brief.other_worker.finish(lease, answer(0.25))
    assert score(await brief.gateway.result(job)) == 0.25
    assert not redis.client.zcard(CLIC.deadlines)


async def test_an_admission_whose_reply_is_lost_can_be_repeated(redis: RedisServer, ends: Ends) -> None:
    async with closing(redis_queue(redis, prefix=CLIC.prefix, name="hasty", timeout_s=0.5)) as (hasty,):
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


async def test_a_finish_whose_reply_is_lost_is_no_late_one(ends: Ends) -> None:
    for outcome in (answer(), Failure(Reason.UNAVAILABLE, "no power")):
        await ends.admit_new("a" if isinstance(outcome, Answer) else "b")
        (lease,) = await ends.worker.lease(1)
        assert await ends.worker.finish(lease, outcome)
        assert await ends.worker.finish(lease, outcome)


async def test_leases_of_which_nobody_heard_cost_no_attempts(redis: RedisServer, brief: Ends) -> None:
    """What was asked arrived, and the reply did not: the pictures are not to blame."""
    async with closing(redis_queue(redis, prefix=CLIC.prefix, max_attempts=2, lease_s=LEASE_S, timeout_s=0.05)) as (
        hasty,
    ):
        await hasty.lease(1, time.monotonic())  # connected, so that what is sent now waits in the socket of the server
        (job,) = await brief.admit_new("a")
        for _ in range(3):
            redis.pause()
            assert not await hasty.lease(1, time.monotonic() + 0.1)
            redis.resume()
            await eventually(lambda: redis.client.xpending(CLIC.jobs, GROUP)["pending"] == 1)
            await asyncio.sleep(1.2 * LEASE_S)
        async with asyncio.timeout(30):
            while not (leases := await hasty.lease(1, time.monotonic() + 1)):
                pass
    assert [(lease.job.id, lease.job.attempt) for lease in leases] == [(job.id, 1)]


async def test_a_line_too_slow_for_the_pixels_costs_no_attempts(brief: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease was granted, but its reply could not be used before it ran out: nobody has begun the job."""
    assert isinstance(brief.worker, RedisQueue)
    intact = brief.worker._link.get
    tries = 0

    async def get(keys: Sequence[bytes]) -> list[bytes | None]:
        nonlocal tries
        tries += 1
        if tries <= 3:
            await asyncio.sleep(1.2 * LEASE_S)
            raise Unavailable("too slow")
        return await intact(keys)

    monkeypatch.setattr(brief.worker._link, "get", get)
    (job,) = await brief.admit_new("a")
    (lease,) = await brief.worker.lease(4)  # there is room to reclaim others, too
    assert (lease.job.id, lease.job.attempt) == (job.id, 1)
    assert await brief.worker.finish(lease, answer())
