"""What only a queue in one process can get wrong; the rest is in test_queue.py."""

import asyncio
import time

import pytest
from queues import answer, memory_ends, new_job

pytestmark = pytest.mark.anyio


async def test_a_caller_cancelled_in_the_very_moment_of_its_answer() -> None:
    async with memory_ends() as ends:
        (job,) = await ends.admit_new("a")
        waiting = asyncio.create_task(ends.gateway.result(job))
        (lease,) = await ends.worker.lease(1)
        await asyncio.sleep(0)
        waiting.cancel()
        assert not await ends.worker.finish(lease, answer())
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_caller_cancelled_in_the_very_moment_of_its_deadline() -> None:
    async with memory_ends() as ends:
        job = new_job("a", deadline_s=0.02)
        await ends.admit(job)
        waiting = asyncio.create_task(ends.gateway.result(job))
        await asyncio.sleep(0)
        time.sleep(0.03)  # noqa: ASYNC251  # so that nothing else notices that the deadline has passed
        waiting.cancel()
        assert not await ends.worker.lease(1, time.monotonic())
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_worker_woken_and_cancelled_at_once_passes_the_job_on() -> None:
    async with memory_ends() as ends:
        first, second = (asyncio.create_task(ends.worker.lease(1)) for _ in range(2))
        await asyncio.sleep(0)
        await ends.admit_new("a")
        first.cancel()
        async with asyncio.timeout(5):
            assert [(lease.job.id, lease.job.attempt) for lease in await second] == [("a", 1)]
