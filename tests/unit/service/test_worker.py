import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from scripted import ScriptedBackend, pixels

from service.batcher import BatchLimits
from service.metrics import Metrics
from service.queue.memory import MemoryQueue
from service.queue.protocol import Answer, Failure, Job, Outcome, Reason
from service.worker import Worker

pytestmark = pytest.mark.anyio

LEASE_S = 0.2


def make_queue() -> MemoryQueue:
    return MemoryQueue(capacity=1000, lease_s=LEASE_S, max_attempts=3, clock=time.monotonic)


@asynccontextmanager
async def working(queue: MemoryQueue, backend: ScriptedBackend, max_size: int = 32) -> AsyncIterator[Metrics]:
    metrics = Metrics()
    limits = BatchLimits(max_size, 0.0, backend.slots)
    worker = asyncio.create_task(Worker(queue, backend, metrics, limits, renew_every_s=LEASE_S / 3).run())
    try:
        yield metrics
        assert not worker.done()
    finally:
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker


async def admit(queue: MemoryQueue, *marks: int, deadline_s: float = 5.0) -> list[Job]:
    now = time.monotonic()
    jobs = [Job(f"{number}", pixels(mark), now + deadline_s, now) for number, mark in enumerate(marks)]
    await queue.present(True)
    for job in jobs:
        await queue.admit(job)
    return jobs


async def results(queue: MemoryQueue, jobs: list[Job]) -> list[Outcome]:
    return list(await asyncio.gather(*(queue.result(job) for job in jobs)))


def reason(outcome: Outcome) -> Reason | None:
    return outcome.reason if isinstance(outcome, Failure) else None


async def test_each_caller_gets_its_own_answer(scripted: ScriptedBackend) -> None:
    queue = make_queue()
    jobs = await admit(queue, *range(100))
    async with working(queue, scripted, max_size=8):
        outcomes = await results(queue, jobs)
    for mark, outcome in enumerate(outcomes):
        assert isinstance(outcome, Answer)
        assert outcome.prediction.score == pytest.approx(mark / 250)
    assert max(map(len, scripted.calls)) == 8


@pytest.mark.parametrize("poison", [ScriptedBackend.RAISES, ScriptedBackend.BAD_SHAPE, ScriptedBackend.NAN])
@pytest.mark.parametrize("position", [0, 13, 31])
async def test_poison_fails_alone(scripted: ScriptedBackend, poison: int, position: int) -> None:
    queue = make_queue()
    marks = [poison if index == position else index for index in range(32)]
    jobs = await admit(queue, *marks)
    async with working(queue, scripted):
        outcomes = await results(queue, jobs)
        assert [reason(outcome) for outcome in outcomes] == [
            Reason.DEAD if mark == poison else None for mark in marks
        ]
        assert len(scripted.calls) <= 1 + 10
        (after,) = await results(queue, await admit(queue, 1))
        assert isinstance(after, Answer)


async def test_a_backend_that_is_down_is_not_asked_again_for_each(scripted: ScriptedBackend) -> None:
    queue = make_queue()
    jobs = await admit(queue, *[ScriptedBackend.IS_DOWN] * 8)
    async with working(queue, scripted):
        outcomes = await results(queue, jobs)
    assert {reason(outcome) for outcome in outcomes} == {Reason.UNAVAILABLE}
    assert len(scripted.calls) == 1


async def test_who_expires_or_leaves_while_the_backend_is_busy_never_reaches_it(scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.1
    queue = make_queue()
    (first,) = await admit(queue, 1)
    async with working(queue, scripted):
        await asyncio.sleep(0.02)
        now = time.monotonic()
        late = Job("late", pixels(2), now + 0.03, now)
        gone = Job("gone", pixels(3), now + 5, now)
        stays = Job("stays", pixels(4), now + 5, now)
        for job in (late, gone, stays):
            await queue.admit(job)
        await queue.cancel(gone)
        assert [reason(outcome) for outcome in await results(queue, [first, late, stays])] == [
            None,
            Reason.EXPIRED,
            None,
        ]
    assert scripted.calls == [[1], [4]]


async def test_who_expires_during_a_bisection_is_not_tried_again(scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.1
    queue = make_queue()
    poison = await admit(queue, ScriptedBackend.RAISES, 1, deadline_s=0.05)
    async with working(queue, scripted):
        await results(queue, poison)
        await asyncio.sleep(0.3)
    assert scripted.calls == [[ScriptedBackend.RAISES, 1]]


async def test_leases_are_renewed_during_a_long_call(scripted: ScriptedBackend) -> None:
    scripted.call_s = 3 * LEASE_S
    queue = make_queue()
    jobs = await admit(queue, 1)
    async with working(queue, scripted) as metrics:
        (outcome,) = await results(queue, jobs)
    assert isinstance(outcome, Answer)
    assert scripted.calls == [[1]]
    assert metrics.registry.get_sample_value("clicv2_finishes_fenced_total") == 0


async def test_every_slot_is_used(scripted: ScriptedBackend) -> None:
    scripted.slots, scripted.call_s = 3, 0.5
    queue = make_queue()
    async with working(queue, scripted):
        await asyncio.sleep(0)
        started = time.monotonic()
        await results(queue, await admit(queue, 1, 2, 3))
        assert time.monotonic() - started < 1
    assert sorted(scripted.calls) == [[1], [2], [3]]


async def test_a_late_finish_is_fenced_and_counted(scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.1
    queue = make_queue()
    (job,) = await admit(queue, 1)
    async with working(queue, scripted) as metrics:
        await asyncio.sleep(0.05)
        await queue.cancel(job)
        await asyncio.sleep(0.1)
        assert metrics.registry.get_sample_value("clicv2_finishes_fenced_total") == 1
