"""The worker: lease -> batch -> infer -> finish, in as many lanes as the backend has slots."""

import asyncio
import time
from collections.abc import Callable, Sequence

import numpy as np

from service import batcher
from service.backend.protocol import Backend, BackendDown, BackendError
from service.batcher import BatchLimits
from service.metrics import Metrics
from service.prediction import BadOutput
from service.queue.protocol import Answer, Failure, Lease, Outcome, Queue, Reason


class Worker:
    """Runs until it is cancelled. Whatever escapes `run` is a defect, not a bad job or a bad backend."""

    def __init__(
        self,
        queue: Queue,
        backend: Backend,
        metrics: Metrics,
        limits: BatchLimits,
        *,
        renew_every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._backend = backend
        self._metrics = metrics
        self._limits = limits
        self._renew_every_s = renew_every_s
        self._clock = clock
        self._turn = asyncio.Lock()  # one lane gathers at a time, or two would each wait to fill half a batch
        self._busy = 0  # lanes in a backend call
        self._held: dict[str, Lease] = {}  # what `_renew` renews

    async def run(self) -> None:
        self._held.clear()  # after a death: leases that nobody renews pass on
        await self._queue.present(self._backend.healthy)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._renew(), name="renew leases")
                for number in range(self._limits.slots):
                    tasks.create_task(self._lane(), name=f"lane {number}")
        finally:
            await self._queue.present(False)

    async def _lane(self) -> None:
        while True:
            async with self._turn:
                # A backend that is down fails fast: still leasing, it would take the jobs of those that work.
                if not self._backend.healthy:
                    await self._queue.present(False)
                    await self._backend.heal()
                    await self._queue.present(True)
                leases = await self._gather()
            self._busy += 1
            try:
                await self._process(leases)
            finally:
                self._busy -= 1
                for lease in leases:  # also those that were no longer wanted, and so never finished
                    self._held.pop(lease.job.id, None)

    async def _gather(self) -> Sequence[Lease]:
        """Lease jobs until the batcher calls them a batch."""
        held: dict[str, Lease] = {}
        while True:
            jobs = [lease.job for lease in held.values()]
            decision = batcher.decide(
                jobs, self._clock(), depth=await self._queue.depth(), busy=self._busy, limits=self._limits
            )
            for job in decision.expired:
                await self._finish(held.pop(job.id), _EXPIRED)
            if decision.batch:
                return [held[job.id] for job in decision.batch]
            for lease in await self._queue.lease(decision.lease, decision.until):
                held[lease.job.id] = self._held[lease.job.id] = lease

    async def _process(self, leases: Sequence[Lease]) -> None:
        """Infer and finish. A batch that fails is halved until the jobs that make it fail are alone."""
        leases = await self._wanted(leases)
        if not leases:
            return
        try:
            answers = await self._infer(leases)
        except BackendDown as error:
            answers = [Failure(Reason.UNAVAILABLE, str(error))] * len(leases)
        except (BackendError, BadOutput) as error:
            if len(leases) > 1:
                middle = len(leases) // 2
                await self._process(leases[:middle])
                await self._process(leases[middle:])
                return
            answers = [Failure(Reason.DEAD, str(error))]
        for lease, outcome in zip(leases, answers, strict=True):
            await self._finish(lease, outcome)

    async def _wanted(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Those that are still ours, not cancelled and not expired: nothing else may reach the backend."""
        now = self._clock()
        for lease in leases:
            if lease.job.deadline <= now:
                await self._finish(lease, _EXPIRED)
        return await self._queue.renew([lease for lease in leases if lease.job.deadline > now])

    async def _infer(self, leases: Sequence[Lease]) -> list[Outcome]:
        """One backend call. Raises BackendError or BadOutput if it fails as a whole."""
        images = np.stack([lease.job.pixels for lease in leases])  # [B, H, W, 3]
        started = self._clock()
        predictions = await self._backend.infer(images)
        inference_s = self._clock() - started
        self._metrics.batch(len(leases))
        self._metrics.took("inference", inference_s)
        predictions.check_shapes(len(leases), self._backend.manifest)

        def outcome(index: int) -> Outcome:
            try:
                return Answer(predictions.at(index), inference_s)
            except BadOutput as error:
                return Failure(Reason.DEAD, str(error))

        return [outcome(index) for index in range(len(leases))]

    async def _finish(self, lease: Lease, outcome: Outcome) -> None:
        self._held.pop(lease.job.id, None)
        if not await self._queue.finish(lease, outcome):
            self._metrics.fenced()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_every_s)
            await self._queue.present(self._backend.healthy)
            await self._queue.renew(list(self._held.values()))


_EXPIRED = Failure(Reason.EXPIRED, "the deadline passed before there was an answer")
