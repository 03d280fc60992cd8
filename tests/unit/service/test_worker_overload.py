"""Which jobs a worker begins when it cannot answer all of them in time."""

import asyncio
import time

import pytest
from queues import memory_ends, reason, running
from scripted import ScriptedBackend, pixels

from service.batcher import BatchLimits
from service.metrics import Metrics
from service.queue.protocol import Job, Reason
from service.worker import Worker

pytestmark = pytest.mark.anyio

CALL_S = 0.5
HASTY_S = 1.8 * CALL_S  # enough for who is begun at once


def job_of(mark: int, deadline_s: float = 30.0) -> Job:
    now = time.monotonic()
    return Job(str(mark), pixels(mark), now + deadline_s, now)


async def test_a_job_that_would_expire_in_the_backend_gives_way_to_others(scripted: ScriptedBackend) -> None:
    scripted.call_s = CALL_S
    async with memory_ends() as ends:
        worker = Worker(ends.worker, scripted, Metrics(), BatchLimits(1, 0.0, 1), renew_every_s=0.1)
        async with running(worker.run()):
            first = job_of(1)
            await ends.admit(first)
            await ends.gateway.result(first)  # now the worker knows how long a call takes
            hasty, patient = job_of(2, HASTY_S), job_of(3)
            await ends.admit(hasty, patient)
            outcomes = await asyncio.gather(ends.gateway.result(hasty), ends.gateway.result(patient))
            assert [reason(outcome) for outcome in outcomes] == [Reason.EXPIRED, None]
            alone = job_of(4, HASTY_S)
            await ends.admit(alone)
            await ends.gateway.result(alone)
    assert scripted.calls == [[1], [3], [4]]
