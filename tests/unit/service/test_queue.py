"""What `service.queue.protocol` promises, kept by every queue."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
from queues import LEASE_S, Ends, answer, memory_ends, new_job, reason, redis_ends, score
from redis_server import RedisServer, redis_server

from service.errors import NoWorker, Overloaded
from service.queue.protocol import Census, Failure, Reason

pytestmark = pytest.mark.anyio

Opener = Callable[..., AbstractAsyncContextManager[Ends]]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def opened(request: pytest.FixtureRequest) -> Opener:
    """Opens a queue."""
    if request.param == "memory":
        return memory_ends
    return partial(redis_ends, request.getfixturevalue("redis"))


async def test_first_in_first_out(opened: Opener) -> None:
    async with opened() as ends:
        await ends.admit_new("a", "b", "c")
        assert [lease.job.id for lease in await ends.worker.lease(2)] == ["a", "b"]
        assert await ends.gateway.depth() == 1
        assert [lease.job.id for lease in await ends.worker.lease(2)] == ["c"]


async def test_a_worker_gets_what_was_admitted(opened: Opener) -> None:
    async with opened() as ends:
        (job,) = await ends.admit_new("a")
        (lease,) = await ends.worker.lease(1)
        assert (lease.job.pixels == job.pixels).all()
        assert lease.job.pixels.shape == job.pixels.shape
        assert lease.job.attempt == 1
        assert abs(lease.job.deadline - job.deadline) < 2
        assert abs(lease.job.admitted_at - job.admitted_at) < 2


async def test_without_a_ready_worker_nothing_is_admitted(opened: Opener) -> None:
    async with opened() as ends:
        with pytest.raises(NoWorker):
            await ends.gateway.admit(new_job("a"))
        await ends.worker.present(False)
        with pytest.raises(NoWorker):
            await ends.gateway.admit(new_job("a"))
        await ends.worker.present(True)
        await ends.gateway.admit(new_job("a"))
        await ends.worker.present(False)
        with pytest.raises(NoWorker):
            await ends.gateway.admit(new_job("b"))


async def test_an_answer_finds_its_caller(opened: Opener) -> None:
    async with opened() as ends:
        (job,) = await ends.admit_new("a")
        waiting = asyncio.create_task(ends.gateway.result(job))
        (lease,) = await ends.worker.lease(1)
        assert await ends.worker.finish(lease, answer(0.25))
        assert score(await waiting) == 0.25


async def test_an_answer_may_come_before_its_caller(opened: Opener) -> None:
    async with opened() as ends:
        (job,) = await ends.admit_new("a")
        (lease,) = await ends.worker.lease(1)
        await ends.worker.finish(lease, answer(0.25))
        await asyncio.sleep(0.05)
        assert score(await ends.gateway.result(job)) == 0.25


async def test_a_failure_reaches_its_caller(opened: Opener) -> None:
    async with opened() as ends:
        for why in (Reason.DEAD, Reason.UNAVAILABLE):
            (job,) = await ends.admit_new(why)
            (lease,) = await ends.worker.lease(1)
            await ends.worker.finish(lease, Failure(why, "kaputt: \u00fc"))
            assert await ends.gateway.result(job) == Failure(why, "kaputt: \u00fc")


async def test_what_is_finished_is_finished_once(opened: Opener) -> None:
    async with opened() as ends:
        (job,) = await ends.admit_new("a")
        (lease,) = await ends.worker.lease(1)
        assert await ends.worker.finish(lease, answer(0.25))
        await ends.worker.finish(lease, Failure(Reason.DEAD, "again"))
        assert score(await ends.gateway.result(job)) == 0.25


async def test_capacity_counts_until_the_finish(opened: Opener) -> None:
    async with opened(capacity=2) as ends:
        await ends.admit_new("a", "b")
        with pytest.raises(Overloaded) as refused:
            await ends.admit_new("c")
        assert (refused.value.reason, refused.value.maximum) == ("queue", 2)
        (lease,) = await ends.worker.lease(1)
        with pytest.raises(Overloaded):
            await ends.admit_new("c")
        await ends.worker.finish(lease, answer())
        await ends.admit_new("c")


async def test_lease_waits_for_a_job(opened: Opener) -> None:
    async with opened() as ends:
        leasing = asyncio.create_task(ends.worker.lease(5))
        await asyncio.sleep(0.05)
        assert not leasing.done()
        await ends.admit_new("a")
        assert [lease.job.id for lease in await leasing] == ["a"]


async def test_lease_waits_no_longer_than_told(opened: Opener) -> None:
    async with opened() as ends:
        until = time.monotonic() + 0.05
        assert not await ends.worker.lease(1, until)
        assert until <= time.monotonic() < until + 5


async def test_each_job_wakes_a_worker_of_its_own(opened: Opener) -> None:
    async with opened() as ends:
        leasing = [asyncio.create_task(end.lease(1)) for end in (ends.worker, ends.worker, ends.other_worker)]
        await asyncio.sleep(0.05)
        await ends.admit_new("a", "b", "c")
        leased = await asyncio.gather(*leasing)
        assert sorted(lease.job.id for (lease,) in leased) == ["a", "b", "c"]


async def test_a_worker_that_dies_while_it_is_woken_passes_the_job_on(opened: Opener) -> None:
    async with opened(lease_s=LEASE_S) as ends:
        first, second = (asyncio.create_task(end.lease(1)) for end in (ends.worker, ends.other_worker))
        await asyncio.sleep(0.05)
        await ends.admit_new("a")
        first.cancel()
        async with asyncio.timeout(20 * LEASE_S):
            assert [lease.job.id for lease in await second] == ["a"]


async def test_the_deadline_ends_the_wait(opened: Opener) -> None:
    async with opened(capacity=1) as ends:
        job = new_job("a", deadline_s=0.2)
        await ends.admit(job)
        assert reason(await ends.gateway.result(job)) is Reason.EXPIRED
        assert job.deadline <= time.monotonic() < job.deadline + 5
        await asyncio.sleep(0.1)
        assert not await ends.worker.lease(1, time.monotonic())
        await ends.admit_new("b")


async def test_an_expired_job_is_not_leased(opened: Opener) -> None:
    async with opened() as ends:
        await ends.admit(new_job("late", deadline_s=0.0))
        await ends.admit_new("a")
        assert [lease.job.id for lease in await ends.worker.lease(2)] == ["a"]


async def test_a_job_that_expires_while_it_is_waited_for_is_not_leased(opened: Opener) -> None:
    async with opened() as ends:
        leasing = asyncio.create_task(ends.worker.lease(2))
        await asyncio.sleep(0.05)
        await ends.admit(new_job("late", deadline_s=0.0))
        await ends.admit_new("a")
        assert [lease.job.id for lease in await leasing] == ["a"]


async def test_a_cancelled_job_is_not_leased(opened: Opener) -> None:
    async with opened(capacity=2) as ends:
        first, _ = await ends.admit_new("a", "b")
        await ends.gateway.cancel(first)
        await ends.gateway.cancel(first)
        assert await ends.gateway.depth() == 1
        assert [lease.job.id for lease in await ends.worker.lease(2)] == ["b"]
        await ends.admit_new("c")


async def test_a_job_cancelled_during_its_lease_is_not_wanted(opened: Opener) -> None:
    async with opened() as ends:
        (job,) = await ends.admit_new("a")
        (lease,) = await ends.worker.lease(1)
        await ends.gateway.cancel(job)
        assert not await ends.worker.renew([lease])
        assert not await ends.worker.finish(lease, answer())


async def test_a_caller_that_is_cancelled_takes_its_job_along(opened: Opener) -> None:
    async with opened() as ends:
        (job,) = await ends.admit_new("a")
        waiting = asyncio.create_task(ends.gateway.result(job))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await ends.gateway.cancel(job)
        await asyncio.sleep(0.05)
        assert await ends.gateway.depth() == 0


async def test_a_lost_lease_passes_on_and_is_fenced(opened: Opener) -> None:
    async with opened(lease_s=LEASE_S) as ends:
        (job,) = await ends.admit_new("a")
        (lost,) = await ends.worker.lease(1)
        (second,) = await ends.other_worker.lease(1)
        assert (second.job.id, second.job.attempt) == ("a", 2)
        assert second.fence > lost.fence
        assert not await ends.worker.renew([lost])
        assert not await ends.worker.finish(lost, Failure(Reason.DEAD, "too late"))
        assert await ends.other_worker.finish(second, answer(0.75))
        assert score(await ends.gateway.result(job)) == 0.75


async def test_a_lost_lease_is_fenced_though_its_worker_leased_the_job_again(opened: Opener) -> None:
    async with opened(lease_s=LEASE_S) as ends:
        (job,) = await ends.admit_new("a")
        (lost,) = await ends.worker.lease(1)
        (second,) = await ends.worker.lease(1)
        assert await ends.worker.renew([lost, second]) == [second]
        assert not await ends.worker.finish(lost, answer(0.25))
        assert await ends.worker.finish(second, answer(0.75))
        assert score(await ends.gateway.result(job)) == 0.75


async def test_what_is_finished_is_never_leased_again(opened: Opener) -> None:
    async with opened(lease_s=LEASE_S) as ends:
        (job,) = await ends.admit_new("a")
        (lease,) = await ends.worker.lease(1)
        await ends.worker.finish(lease, answer(0.25))
        assert not await ends.worker.lease(1, time.monotonic() + 2 * LEASE_S)
        assert score(await ends.gateway.result(job)) == 0.25


async def test_a_lease_of_an_earlier_job_of_the_same_id_is_fenced(opened: Opener) -> None:
    async with opened() as ends:
        (job,) = await ends.admit_new("a")
        (old,) = await ends.worker.lease(1)
        await ends.gateway.cancel(job)
        (again,) = await ends.admit_new("a")
        (new,) = await ends.worker.lease(1)
        assert new.fence > old.fence
        assert await ends.worker.renew([old, new]) == [new]
        assert not await ends.worker.finish(old, answer(0.25))
        assert await ends.worker.finish(new, answer(0.75))
        assert score(await ends.gateway.result(again)) == 0.75


async def test_a_renewed_lease_is_kept(opened: Opener) -> None:
    lease_s = 4 * LEASE_S
    async with opened(lease_s=lease_s) as ends:
        (job,) = await ends.admit_new("a")
        (lease,) = await ends.worker.lease(1)
        for _ in range(6):
            await asyncio.sleep(lease_s / 4)
            assert await ends.worker.renew([lease]) == [lease]
            assert not await ends.other_worker.lease(1, time.monotonic())
        assert await ends.worker.finish(lease, answer())
        assert score(await ends.gateway.result(job)) == 0.5


async def test_after_the_last_attempt_it_is_given_up(opened: Opener) -> None:
    async with opened(max_attempts=2, lease_s=LEASE_S) as ends:
        (job,) = await ends.admit_new("a")
        for attempt in (1, 2):
            (lease,) = await ends.worker.lease(1)
            assert lease.job.attempt == attempt
        waiting = asyncio.create_task(ends.gateway.result(job))
        await asyncio.sleep(0.05)
        assert not await ends.worker.lease(1, time.monotonic() + 2 * LEASE_S)
        outcome = await waiting
        assert isinstance(outcome, Failure)
        assert outcome.reason is Reason.DEAD
        assert "2 attempts" in outcome.detail


async def test_who_admits_the_same_job_joins_it(opened: Opener) -> None:
    async with opened(capacity=1) as ends:
        (first,) = await ends.admit_new("a")
        (second,) = await ends.admit_new("a")
        assert await ends.gateway.depth() == 1
        (lease,) = await ends.worker.lease(2)
        await ends.worker.finish(lease, answer(0.25))
        assert [score(await ends.gateway.result(job)) for job in (first, second)] == [0.25, 0.25]


async def test_a_job_goes_with_the_last_who_joined_it(opened: Opener) -> None:
    async with opened() as ends:
        first, second, third = [(await ends.admit_new("a"))[0] for _ in range(3)]
        await ends.gateway.cancel(first)
        await ends.gateway.cancel(first)
        await ends.gateway.cancel(second)
        assert await ends.gateway.depth() == 1
        await ends.gateway.cancel(third)
        assert await ends.gateway.depth() == 0


async def test_who_joins_brings_a_later_deadline(opened: Opener) -> None:
    async with opened() as ends:
        early, late = new_job("a", deadline_s=0.3), new_job("a")
        await ends.admit(early, late)
        assert reason(await ends.gateway.result(early)) is Reason.EXPIRED
        await asyncio.sleep(0.1)
        (lease,) = await ends.worker.lease(1)
        assert lease.job.deadline > time.monotonic() + 10
        await ends.worker.finish(lease, answer(0.25))
        assert score(await ends.gateway.result(late)) == 0.25


async def test_a_census_counts_what_there_is(opened: Opener) -> None:
    async with opened() as ends:
        assert await ends.gateway.census() == Census(waiting=0, leased=0, dead=0, oldest_s=0.0, workers=0)
        await ends.admit_new("a", "b", "c")
        (lease,) = await ends.worker.lease(1)
        counted = await ends.gateway.census()
        assert (counted.waiting, counted.leased, counted.workers) == (2, 1, 1)
        assert 0.0 < counted.oldest_s < 30
        await ends.worker.finish(lease, answer())
        counted = await ends.gateway.census()
        assert (counted.waiting, counted.leased) == (2, 0)
