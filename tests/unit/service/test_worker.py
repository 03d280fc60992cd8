import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import pytest
from queues import Ends, eventually, memory_ends, new_job, reason, redis_ends, running
from redis_server import RedisServer, redis_server
from scripted import ScriptedBackend, pixels

from service.batcher import BatchLimits
from service.errors import NoWorker
from service.metrics import Metrics
from service.queue.protocol import Answer, Job, Outcome, Reason
from service.worker import Worker

pytestmark = pytest.mark.anyio

LEASE_S = 1.5  # so long that a busy machine renews in time

Opener = Callable[..., AbstractAsyncContextManager[Ends]]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[Ends]:
    """A queue, in memory and in Redis."""
    opened: Opener = memory_ends
    if request.param == "redis":
        opened = partial(redis_ends, request.getfixturevalue("redis"))
    async with opened(capacity=1000, lease_s=LEASE_S) as ends:
        yield ends


@asynccontextmanager
async def working(ends: Ends, backend: ScriptedBackend, max_size: int = 32) -> AsyncIterator[Metrics]:
    metrics = Metrics()
    limits = BatchLimits(max_size, 0.0, backend.slots)
    async with running(Worker(ends.worker, backend, metrics, limits, renew_every_s=LEASE_S / 3).run()):
        yield metrics


async def admit(ends: Ends, *marks: int, deadline_s: float = 30.0) -> list[Job]:
    now = time.monotonic()
    jobs = [Job(f"{number}-{mark}", pixels(mark), now + deadline_s, now) for number, mark in enumerate(marks)]
    await ends.admit(*jobs)
    return jobs


async def results(ends: Ends, jobs: list[Job]) -> list[Outcome]:
    return list(await asyncio.gather(*(ends.gateway.result(job) for job in jobs)))


async def test_each_caller_gets_its_own_answer(ends: Ends, scripted: ScriptedBackend) -> None:
    jobs = await admit(ends, *range(100))
    async with working(ends, scripted, max_size=8):
        outcomes = await results(ends, jobs)
    for mark, outcome in enumerate(outcomes):
        assert isinstance(outcome, Answer)
        assert outcome.prediction.score == pytest.approx(mark / 250)
    assert max(map(len, scripted.calls)) == 8


@pytest.mark.parametrize("poison", [ScriptedBackend.RAISES, ScriptedBackend.BAD_SHAPE, ScriptedBackend.NAN])
@pytest.mark.parametrize("position", [0, 13, 31])
async def test_poison_fails_alone(ends: Ends, scripted: ScriptedBackend, poison: int, position: int) -> None:
    marks = [poison if index == position else index for index in range(32)]
    jobs = await admit(ends, *marks)
    async with working(ends, scripted):
        outcomes = await results(ends, jobs)
        assert [reason(outcome) for outcome in outcomes] == [Reason.DEAD if mark == poison else None for mark in marks]
        assert len(scripted.calls) <= 1 + 10
        (after,) = await results(ends, await admit(ends, 1))
        assert isinstance(after, Answer)


async def test_a_backend_that_is_down_is_not_asked_again_for_each(ends: Ends, scripted: ScriptedBackend) -> None:
    jobs = await admit(ends, *[ScriptedBackend.IS_DOWN] * 8)
    async with working(ends, scripted):
        outcomes = await results(ends, jobs)
    assert {reason(outcome) for outcome in outcomes} == {Reason.UNAVAILABLE}
    assert len(scripted.calls) == 1


async def test_who_expires_or_leaves_while_the_backend_is_busy_never_reaches_it(
    ends: Ends, scripted: ScriptedBackend
) -> None:
    scripted.call_s = 0.4
    (first,) = await admit(ends, 1)
    async with working(ends, scripted):
        await eventually(lambda: scripted.calls)
        late, gone, stays = (
            new_job("late", 0.1, pixels(2)),
            new_job("gone", 30, pixels(3)),
            new_job("stays", 30, pixels(4)),
        )
        await ends.admit(late, gone, stays)
        await ends.gateway.cancel(gone)
        outcomes = await results(ends, [first, late, stays])
        assert [reason(outcome) for outcome in outcomes] == [None, Reason.EXPIRED, None]
    assert scripted.calls == [[1], [4]]


async def test_who_expires_during_a_bisection_is_not_tried_again(ends: Ends, scripted: ScriptedBackend) -> None:
    scripted.call_s = 1.6
    poison = await admit(ends, ScriptedBackend.RAISES, 1, deadline_s=1.5)  # begun by then, on a busy machine, too
    async with working(ends, scripted):
        await results(ends, poison)
        await asyncio.sleep(1.5 * scripted.call_s)
    assert scripted.calls == [[ScriptedBackend.RAISES, 1]]


async def test_leases_are_renewed_during_a_long_call(ends: Ends, scripted: ScriptedBackend) -> None:
    scripted.call_s = 1.5 * LEASE_S
    jobs = await admit(ends, 1)
    async with working(ends, scripted) as metrics:
        (outcome,) = await results(ends, jobs)
    assert isinstance(outcome, Answer)
    assert scripted.calls == [[1]]
    assert metrics.registry.get_sample_value("clicv2_finishes_fenced_total") == 0


async def test_every_slot_is_used(ends: Ends, scripted: ScriptedBackend) -> None:
    scripted.slots, scripted.call_s = 3, 1.0
    async with working(ends, scripted):
        jobs = await admit(ends, 1, 2, 3)
        await eventually(lambda: len(scripted.calls) == 3)
        assert all(isinstance(outcome, Answer) for outcome in await results(ends, jobs))
        started = [job.admitted_at for job in jobs]
        assert time.monotonic() - min(started) < 2.5, "three calls one after the other take 3 s"
    assert sorted(scripted.calls) == [[1], [2], [3]]


async def test_a_late_finish_is_fenced_and_counted(ends: Ends, scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.2
    (job,) = await admit(ends, 1)
    async with working(ends, scripted) as metrics:
        await eventually(lambda: scripted.calls)
        await ends.gateway.cancel(job)
        await eventually(lambda: metrics.registry.get_sample_value("clicv2_finishes_fenced_total") == 1)


async def test_a_worker_outlives_the_leases_of_one_that_died(ends: Ends, scripted: ScriptedBackend) -> None:
    jobs = await admit(ends, 1, 2, 3)
    assert len(await ends.other_worker.lease(2)) == 2
    async with working(ends, scripted):
        assert all(isinstance(outcome, Answer) for outcome in await results(ends, jobs))
    assert sorted(mark for call in scripted.calls for mark in call) == [1, 2, 3]


async def test_a_worker_that_is_not_ready_is_not_counted_on(ends: Ends, scripted: ScriptedBackend) -> None:
    scripted.healthy = False
    async with working(ends, scripted):
        await asyncio.sleep(0.1)
        with pytest.raises(NoWorker):
            await ends.gateway.admit(new_job("a", pixels=pixels(1)))
        scripted.healthy = True
        job = new_job("b", pixels=pixels(1))
        await until_admitted(ends, job)
        assert isinstance(await ends.gateway.result(job), Answer)


async def test_a_backend_that_falls_while_nobody_asks_is_healed(ends: Ends, scripted: ScriptedBackend) -> None:
    """Without a ready worker no job comes, so waiting for one would be waiting for ever."""

    async def heal() -> None:
        scripted.healthy = True

    scripted.heal = heal  # type: ignore[method-assign]  # as Triton's does: it is this call that finds out
    async with working(ends, scripted):
        await asyncio.sleep(0.2)  # by now every lane waits for a job
        scripted.healthy = False
        await eventually(lambda: scripted.healthy)
        job = new_job("a", pixels=pixels(1))
        await until_admitted(ends, job)
        assert isinstance(await ends.gateway.result(job), Answer)


@pytest.mark.parametrize("busy", [False, True])
async def test_who_drains_finishes_what_it_has_and_takes_nothing_more(
    ends: Ends, scripted: ScriptedBackend, busy: bool
) -> None:
    scripted.call_s = 0.3
    worker = Worker(ends.worker, scripted, Metrics(), BatchLimits(1, 0.0, scripted.slots), renew_every_s=LEASE_S / 3)
    async with running(worker.run()):
        first = await admit(ends, 1) if busy else []
        if busy:
            await eventually(lambda: scripted.calls)
        else:
            await asyncio.sleep(0.2)  # by now every lane waits for a job
        worker.drain()
        late = await admit(ends, 2)
        assert all(isinstance(outcome, Answer) for outcome in await results(ends, first))
        await eventually(lambda: worker.in_flight == 0)
        await asyncio.sleep(0.2)
        assert scripted.calls == ([[1]] if busy else [])
        (lease,) = await ends.other_worker.lease(1)
        assert lease.job.id == late[0].id


async def until_admitted(ends: Ends, job: Job) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                return await ends.gateway.admit(job)
            except NoWorker:
                await asyncio.sleep(0.02)
