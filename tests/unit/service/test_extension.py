"""Both queues; Redis is a real one."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from queues import Ends, answer, memory_ends, new_job, reason, redis_ends, score
from redis_server import RedisServer, redis_server

from service.errors import Unavailable
from service.queue.extension import extended_result
from service.queue.protocol import Job, Outcome, Reason

pytestmark = pytest.mark.anyio

SHORT_S, LONG_S = 0.4, 60.0


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[Ends]:
    if request.param == "memory":
        async with memory_ends(lease_s=LONG_S) as ends:
            yield ends
        return
    async with redis_ends(request.getfixturevalue("shared"), lease_s=LONG_S) as ends:
        yield ends


class Wanted:
    """Until when somebody says."""

    def __init__(self, job: Job) -> None:
        self.until = job.deadline


async def begin(ends: Ends, deadline_s: float) -> tuple[Job, Wanted, "asyncio.Task[Outcome]"]:
    job = new_job("picture", deadline_s)
    await ends.admit(job)
    wanted = Wanted(job)
    waiting = asyncio.create_task(extended_result(ends.gateway, job, lambda: wanted.until, time.monotonic))
    return job, wanted, waiting


async def sleep_past(job: Job) -> None:
    await asyncio.sleep(job.deadline - time.monotonic() + 0.3)


async def test_as_ever_when_nobody_joins(ends: Ends) -> None:
    _, _, waiting = await begin(ends, LONG_S)
    (lease,) = await ends.worker.lease(1)
    await ends.worker.finish(lease, answer(0.7))
    assert score(await waiting) == 0.7
    assert await ends.gateway.depth() == 0


async def test_it_expires_when_nobody_wants_it_longer(ends: Ends) -> None:
    job, _, waiting = await begin(ends, SHORT_S)
    assert reason(await waiting) is Reason.EXPIRED
    assert time.monotonic() >= job.deadline - 0.01


async def test_one_that_waits_keeps_its_place(ends: Ends) -> None:
    job, wanted, waiting = await begin(ends, SHORT_S)
    wanted.until = job.deadline + LONG_S
    await ends.admit_new("another")
    await sleep_past(job)
    first, second = await ends.worker.lease(2)
    assert (first.job.id, second.job.id) == ("picture", "another")
    await ends.worker.finish(first, answer(0.7))
    assert score(await waiting) == 0.7


async def test_one_that_is_leased_is_done_once(ends: Ends) -> None:
    job, wanted, waiting = await begin(ends, SHORT_S)
    (lease,) = await ends.worker.lease(1)
    wanted.until = job.deadline + LONG_S
    await sleep_past(job)
    assert await ends.other_worker.lease(1, time.monotonic() + 0.05) == []
    assert await ends.worker.finish(lease, answer(0.7))
    assert score(await waiting) == 0.7


async def test_it_is_put_off_again_and_again(ends: Ends) -> None:
    job, wanted, waiting = await begin(ends, SHORT_S)
    for _ in range(3):
        wanted.until += SHORT_S
        await asyncio.sleep(SHORT_S / 2)
    wanted.until = job.deadline + LONG_S
    await asyncio.sleep(5 * SHORT_S)
    (lease,) = await ends.worker.lease(1)
    await ends.worker.finish(lease, answer(0.7))
    assert score(await waiting) == 0.7


@pytest.mark.parametrize("put_off", [False, True])
async def test_when_it_is_cancelled_no_worker_gets_it(ends: Ends, put_off: bool) -> None:
    job, wanted, waiting = await begin(ends, SHORT_S if put_off else LONG_S)
    if put_off:
        wanted.until = job.deadline + LONG_S
        await sleep_past(job)
    else:
        await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert await ends.gateway.depth() == 0
    assert await ends.worker.lease(1, time.monotonic() + 0.05) == []


async def test_a_queue_that_does_not_put_it_off(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had its deadline and keeps it."""

    async def out_of_reach(_: Job) -> None:
        raise Unavailable("cut")

    job, wanted, waiting = await begin(ends, SHORT_S)
    wanted.until = job.deadline + LONG_S
    monkeypatch.setattr(ends.gateway, "admit", out_of_reach)
    assert reason(await waiting) is Reason.EXPIRED
