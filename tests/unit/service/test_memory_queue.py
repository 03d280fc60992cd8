import asyncio
import time

import numpy as np
import pytest

from service.errors import Overloaded
from service.prediction import Prediction
from service.queue.memory import MemoryQueue
from service.queue.protocol import Answer, Failure, Job, Reason

pytestmark = pytest.mark.anyio

EMPTY = np.zeros(0, np.float32)
ANSWER = Answer(Prediction(1, 0.5, 0.5, EMPTY, EMPTY), 0.0)
LEASE_S = 0.1


def make_queue(capacity: int = 10, max_attempts: int = 3) -> MemoryQueue:
    return MemoryQueue(capacity=capacity, lease_s=LEASE_S, max_attempts=max_attempts, clock=time.monotonic)


def make_job(name: str, deadline_s: float = 5.0) -> Job:
    now = time.monotonic()
    return Job(name, np.zeros((1, 1, 3), np.uint8), now + deadline_s, now)


async def admitted(queue: MemoryQueue, *names: str) -> list[Job]:
    jobs = [make_job(name) for name in names]
    await queue.present(True)
    for job in jobs:
        await queue.admit(job)
    return jobs


async def test_first_in_first_out() -> None:
    queue = make_queue()
    await admitted(queue, "a", "b", "c")
    assert [lease.job.id for lease in await queue.lease(2)] == ["a", "b"]
    assert await queue.depth() == 1
    assert [lease.job.id for lease in await queue.lease(2)] == ["c"]


async def test_an_answer_finds_its_caller() -> None:
    queue = make_queue()
    (job,) = await admitted(queue, "a")
    waiting = asyncio.create_task(queue.result(job))
    (lease,) = await queue.lease(1)
    assert await queue.finish(lease, ANSWER)
    assert await waiting is ANSWER


async def test_an_answer_may_come_before_its_caller() -> None:
    queue = make_queue()
    (job,) = await admitted(queue, "a")
    (lease,) = await queue.lease(1)
    await queue.finish(lease, ANSWER)
    assert await queue.result(job) is ANSWER


async def test_what_is_finished_is_finished_once() -> None:
    queue = make_queue()
    (job,) = await admitted(queue, "a")
    (lease,) = await queue.lease(1)
    assert await queue.finish(lease, ANSWER)
    assert not await queue.finish(lease, Failure(Reason.DEAD, "again"))
    assert await queue.result(job) is ANSWER


async def test_capacity_counts_until_the_finish() -> None:
    queue = make_queue(capacity=2)
    await admitted(queue, "a", "b")
    with pytest.raises(Overloaded) as refused:
        await queue.admit(make_job("c"))
    assert (refused.value.reason, refused.value.maximum) == ("queue", 2)
    (lease,) = await queue.lease(1)
    with pytest.raises(Overloaded):
        await queue.admit(make_job("c"))
    await queue.finish(lease, ANSWER)
    await queue.admit(make_job("c"))


async def test_lease_waits_for_a_job() -> None:
    queue = make_queue()
    leasing = asyncio.create_task(queue.lease(5))
    await asyncio.sleep(0.01)
    assert not leasing.done()
    await admitted(queue, "a")
    assert [lease.job.id for lease in await leasing] == ["a"]


async def test_lease_waits_no_longer_than_told() -> None:
    queue = make_queue()
    until = time.monotonic() + 0.05
    assert not await queue.lease(1, until)
    assert until <= time.monotonic() < until + 1


async def test_each_job_wakes_a_worker_of_its_own() -> None:
    queue = make_queue()
    leasing = [asyncio.create_task(queue.lease(1)) for _ in range(2)]
    await asyncio.sleep(0.01)
    await admitted(queue, "a", "b")
    leased = await asyncio.gather(*leasing)
    assert sorted(lease.job.id for (lease,) in leased) == ["a", "b"]


async def test_a_worker_that_dies_while_it_is_woken_passes_the_job_on() -> None:
    queue = make_queue()
    first, second = (asyncio.create_task(queue.lease(1)) for _ in range(2))
    await asyncio.sleep(0.01)
    await admitted(queue, "a")
    first.cancel()
    async with asyncio.timeout(1):
        assert [lease.job.id for lease in await second] == ["a"]


async def test_the_deadline_ends_the_wait() -> None:
    queue = make_queue(capacity=1)
    job = make_job("a", deadline_s=0.05)
    await queue.admit(job)
    outcome = await queue.result(job)
    assert isinstance(outcome, Failure)
    assert outcome.reason is Reason.EXPIRED
    assert job.deadline <= time.monotonic() < job.deadline + 1
    assert not await queue.lease(1, time.monotonic())
    await queue.admit(make_job("b"))


async def test_an_expired_job_is_not_leased() -> None:
    queue = make_queue()
    await queue.admit(make_job("late", deadline_s=0.0))
    await admitted(queue, "a")
    assert [lease.job.id for lease in await queue.lease(2)] == ["a"]


async def test_a_cancelled_job_is_not_leased() -> None:
    queue = make_queue(capacity=2)
    first, _ = await admitted(queue, "a", "b")
    await queue.cancel(first)
    await queue.cancel(first)
    assert await queue.depth() == 1
    assert [lease.job.id for lease in await queue.lease(2)] == ["b"]
    await admitted(queue, "c")


async def test_a_job_cancelled_during_its_lease_is_not_wanted() -> None:
    queue = make_queue()
    (job,) = await admitted(queue, "a")
    (lease,) = await queue.lease(1)
    await queue.cancel(job)
    assert not await queue.renew([lease])
    assert not await queue.finish(lease, ANSWER)


async def test_a_caller_cancelled_in_the_very_moment_of_its_answer() -> None:
    queue = make_queue()
    (job,) = await admitted(queue, "a")
    waiting = asyncio.create_task(queue.result(job))
    (lease,) = await queue.lease(1)
    await asyncio.sleep(0)
    waiting.cancel()
    assert not await queue.finish(lease, ANSWER)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_caller_cancelled_in_the_very_moment_of_its_deadline() -> None:
    queue = make_queue()
    job = make_job("a", deadline_s=0.02)
    await queue.admit(job)
    waiting = asyncio.create_task(queue.result(job))
    await asyncio.sleep(0)
    time.sleep(0.03)  # noqa: ASYNC251  # so that nothing else notices that the deadline has passed
    waiting.cancel()
    assert not await queue.lease(1, time.monotonic())
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_lost_lease_passes_on_and_is_fenced() -> None:
    queue = make_queue()
    (job,) = await admitted(queue, "a")
    (lost,) = await queue.lease(1)
    (second,) = await queue.lease(1, time.monotonic() + 1)
    assert (second.job.id, second.job.attempt) == ("a", 2)
    assert second.fence > lost.fence
    assert not await queue.renew([lost])
    assert not await queue.finish(lost, Failure(Reason.DEAD, "too late"))
    assert await queue.finish(second, ANSWER)
    assert await queue.result(job) is ANSWER


async def test_a_renewed_lease_is_kept() -> None:
    queue = make_queue()
    await admitted(queue, "a")
    (lease,) = await queue.lease(1)
    for _ in range(5):
        await asyncio.sleep(LEASE_S / 2)
        assert await queue.renew([lease]) == [lease]
    assert await queue.finish(lease, ANSWER)


async def test_after_the_last_attempt_it_is_given_up() -> None:
    queue = make_queue(max_attempts=2)
    (job,) = await admitted(queue, "a")
    for _ in range(2):
        assert await queue.lease(1, time.monotonic() + 1)
    outcome = await queue.result(job)
    assert isinstance(outcome, Failure)
    assert outcome.reason is Reason.DEAD
    assert "2 attempts" in outcome.detail
