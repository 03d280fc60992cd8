"""Both queues as their users hold them, for tests of the queues and of what runs over them."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from secrets import token_hex

import numpy as np
from redis_server import RedisServer

from clicv2.imaging import Pixels
from service.errors import NoWorker, Overloaded, Unavailable
from service.prediction import Prediction
from service.queue.keys import Keys
from service.queue.memory import MemoryQueue
from service.queue.protocol import Answer, Failure, Job, Outcome, Queue, Reason
from service.queue.redis import RedisQueue

# A worker is taken to be gone after it: no test waits so long, however busy its machine is.
LONG_LEASE_S = 60.0
# For tests in which leases run out.
LEASE_S = 0.4
# Of the queues whose keys a test looks at.
CLIC = Keys("clicv2")
PIXELS = np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True)
class Ends:
    """One queue; in memory all its ends are one object, in Redis each is a process's own."""

    gateway: Queue
    worker: Queue
    other_worker: Queue

    async def admit(self, *jobs: Job) -> None:
        """Admit them at the gateway while there is a worker that is ready."""
        for job in jobs:
            await self._admit(job)

    async def _admit(self, job: Job) -> None:
        async with asyncio.timeout(30):
            while True:
                await self.worker.present(True)
                # With brief leases, and where this process was stopped for a while, that is no longer believed.
                with suppress(NoWorker):
                    return await self.gateway.admit(job)

    async def admit_new(self, *names: str) -> list[Job]:
        jobs = [new_job(name) for name in names]
        await self.admit(*jobs)
        return jobs

    async def lease_one(self) -> str:
        """The id of the job that the worker gets."""
        (lease,) = await self.worker.lease(1)
        return lease.job.id


@asynccontextmanager
async def memory_ends(
    *, capacity: int = 10, max_attempts: int = 3, lease_s: float = LONG_LEASE_S
) -> AsyncIterator[Ends]:
    queue = MemoryQueue(capacity=capacity, lease_s=lease_s, max_attempts=max_attempts, clock=time.monotonic)
    yield Ends(queue, queue, queue)
    await queue.close()


@asynccontextmanager
async def redis_ends(
    server: RedisServer,
    *,
    prefix: str | None = None,
    capacity: int = 10,
    max_attempts: int = 3,
    lease_s: float = LONG_LEASE_S,
) -> AsyncIterator[Ends]:
    prefix = prefix or token_hex(4)

    def end(name: str) -> RedisQueue:
        return redis_queue(
            server, prefix=prefix, name=name, capacity=capacity, max_attempts=max_attempts, lease_s=lease_s
        )

    async with closing(end("gateway"), end("worker"), end("other")) as (gateway, worker, other), listening(gateway):
        yield Ends(gateway, worker, other)


@asynccontextmanager
async def closing(*queues: RedisQueue) -> AsyncIterator[tuple[RedisQueue, ...]]:
    try:
        yield queues
    finally:
        for queue in queues:
            await queue.close()


def redis_queue(
    server: RedisServer,
    *,
    prefix: str,
    name: str | None = None,
    capacity: int = 10,
    lease_s: float = LONG_LEASE_S,
    max_attempts: int = 3,
    result_ttl_s: float = 30.0,
    timeout_s: float = 10.0,  # nobody waits here: what is slow is the machine
) -> RedisQueue:
    return RedisQueue(
        server.url,
        prefix=prefix,
        name=name,
        capacity=capacity,
        lease_s=lease_s,
        max_attempts=max_attempts,
        result_ttl_s=result_ttl_s,
        timeout_s=timeout_s,
    )


@asynccontextmanager
async def listening(queue: Queue) -> AsyncIterator[None]:
    async with running(queue.listen()):
        yield


@asynccontextmanager
async def running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run it meanwhile, and fail if it ends."""
    task = asyncio.create_task(work)
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0.005)


def new_job(name: str, deadline_s: float = 30.0, pixels: Pixels = PIXELS) -> Job:
    now = time.monotonic()
    return Job(name, pixels, now + deadline_s, now)


def answer(score: float = 0.5) -> Answer:
    return Answer(Prediction(1, score, 0.5, np.zeros((1, 1), np.float32), np.zeros(2, np.float32)), 0.0)


def score(outcome: Outcome) -> float:
    assert isinstance(outcome, Answer), outcome
    return outcome.prediction.score


def reason(outcome: Outcome) -> Reason | None:
    return outcome.reason if isinstance(outcome, Failure) else None


def numbered(value: int, deadline_s: float = 60.0) -> Job:
    """A job whose pixels spell a number below 65,536."""
    return new_job(token_hex(8), deadline_s, np.array([[[value >> 8, value & 255, 0]]], np.uint8))


def number(job: Job) -> float:
    high, low, _ = job.pixels[0, 0].tolist()
    return float(high << 8 | low)


async def work(worker: Queue, at_most: int = 8) -> None:
    """Answer each job with the number that its pixels spell."""
    async with running(present(worker)):
        while True:
            leases = await worker.lease(at_most)
            await asyncio.sleep(random.uniform(0, 0.01))
            await asyncio.gather(*(worker.finish(lease, answer(number(lease.job))) for lease in leases))


async def present(worker: Queue) -> None:
    """Say all the time that it is ready."""
    while True:
        await worker.present(True)
        await asyncio.sleep(LEASE_S / 3)


async def insist(gateway: Queue, job: Job) -> Outcome:
    """As a client that comes again while the service cannot take its job."""
    while True:
        try:
            await gateway.admit(job)
            return await gateway.result(job)
        except (Unavailable, Overloaded):
            await asyncio.sleep(0.05)
