"""The worker: lease -> batch -> infer -> finish, in as many lanes as the backend has slots."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np

from clicv2.imaging import Pixels
from service import batcher, tracing
from service.backend.protocol import Backend, BackendDown, BackendError
from service.batcher import BatchLimits
from service.errors import Unavailable
from service.log import about
from service.metrics import Metrics
from service.prediction import BadOutput, Predictions
from service.queue.protocol import Answer, Failure, Job, Lease, Outcome, Queue, Reason
from service.tracing import Facts, Tracer

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.1  # at the backend's health
# How long what the queue said of a lease is taken to be still true: too short for many callers to leave in.
_FRESH_S = 0.02


class Worker:
    """Runs until it is cancelled. Whatever escapes `run` is a defect, not a bad job or a bad backend.

    Attributes:
        answered_at: instant of the backend's last answer, on `clock`; minus infinity before the first.
        draining: it finishes what it has and leases nothing more.
    """

    def __init__(
        self,
        queue: Queue,
        backend: Backend,
        metrics: Metrics,
        limits: BatchLimits,
        *,
        renew_every_s: float,
        clock: Callable[[], float] = time.monotonic,
        tracer: Tracer | None = None,
    ) -> None:
        self._queue = queue
        self._backend = backend
        self._tracer = tracer
        self._metrics = metrics
        self._limits = limits
        self._renew_every_s = renew_every_s
        self._clock = clock
        self._turn = asyncio.Lock()  # one lane gathers at a time, or two would each wait to fill half a batch
        self._busy = 0  # lanes in a backend call
        self._held: dict[str, Lease] = {}  # what `_renew` renews
        self._calls_s: deque[float] = deque(maxlen=5)  # how long the last calls took; several, as one may hiccup
        self._leasing: asyncio.Task[object] | None = None  # the lane that waits for jobs
        self.answered_at = float("-inf")
        self.draining = False
        metrics.watch(backend, limits.slots)

    @property
    def in_flight(self) -> int:
        return len(self._held)

    def drain(self) -> None:
        self.draining = True
        if self._leasing is not None:
            self._leasing.cancel()

    async def prove(self, pixels: Pixels, deadline: float) -> None:
        """Take one model input, uint8 [H, W, 3], through the backend. Raises Unavailable."""
        try:
            async with asyncio.timeout(deadline - self._clock()):
                await self._infer(pixels[None])
        except TimeoutError as error:
            raise Unavailable("the backend did not answer in time") from error
        except (BackendError, BadOutput) as error:
            raise Unavailable(str(error)) from error

    async def run(self) -> None:
        self._held.clear()  # after a death: leases that nobody renews pass on
        await self._queue.present(self._backend.healthy)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._renew(), name="renew leases")
                tasks.create_task(self._heal(), name="heal the backend")
                for number in range(self._limits.slots):
                    tasks.create_task(self._lane(), name=f"lane {number}")
                # Whoever drains it ends the process; until then it renews what the lanes still work on.
        finally:
            await self._queue.present(False)

    async def _lane(self) -> None:
        while not self.draining:
            async with self._turn:
                # A backend that is down fails fast: still leasing, it would take the jobs of those that work.
                await self._backend.heal()
                leases, leased_at = await self._gather()
            self._busy += 1
            self._metrics.slots_busy(1)
            try:
                await self._process(leases, leased_at)
            finally:
                self._busy -= 1
                self._metrics.slots_busy(-1)
                for lease in leases:  # also those that were no longer wanted, and so never finished
                    self._held.pop(lease.job.id, None)

    async def _gather(self) -> tuple[Sequence[Lease], float]:
        """Lease jobs until the batcher calls them a batch, none when draining; and when the first was leased."""
        held: dict[str, Lease] = {}
        leased_at = self._clock()
        while not self.draining:
            jobs = [lease.job for lease in held.values()]
            # A batch of one takes one, however many wait; and to ask is a way to the queue and back.
            depth = 0 if held or self._limits.max_size == 1 else await self._depth()
            decision = batcher.decide(jobs, self._clock(), depth=depth, busy=self._busy, limits=self._limits)
            for job in decision.expired:
                await self._finish(held.pop(job.id), _EXPIRED)
            if decision.batch:
                self._metrics.took("batch", self._clock() - leased_at)
                return [held[job.id] for job in decision.batch], leased_at
            leases = await self._lease(decision.lease, decision.until)
            if not held:
                leased_at = self._clock()
            for lease in leases:
                self._metrics.leased(lease.job.attempt)
                self._trace_lease(lease.job)
                held[lease.job.id] = self._held[lease.job.id] = lease
        return list(held.values()), leased_at

    def _trace_lease(self, job: Job) -> None:
        facts: Facts = {"clicv2.job_id": job.id, "clicv2.attempt": job.attempt}
        tracing.over(self._tracer, "queue", facts, parent=job.trace, took_s=self._clock() - job.admitted_at)

    async def _depth(self) -> int:
        try:
            return await self._queue.depth()
        except Unavailable:
            return 0  # `lease` waits until the queue is back

    async def _lease(self, at_most: int, until: float | None) -> Sequence[Lease]:
        """The queue's `lease`, which a drain interrupts."""
        self._leasing = task = asyncio.current_task()
        try:
            return await self._queue.lease(at_most, until)
        except asyncio.CancelledError:
            if self.draining and task is not None and task.uncancel() == 0:
                return ()
            raise
        finally:
            self._leasing = None

    async def _process(self, leases: Sequence[Lease], asked_at: float) -> None:
        """Infer and finish. A batch that fails is halved until the jobs that make it fail are alone.

        Args:
            asked_at: when the queue last said that the leases are held and the jobs wanted.
        """
        leases = await self._wanted(leases, asked_at)
        if not leases:
            return
        with about(job_id=" ".join(lease.job.id for lease in leases)):
            await self._do(leases)

    async def _do(self, leases: Sequence[Lease]) -> None:
        """`_process`, of those that are wanted."""
        try:
            answers = await self._answer(leases)
        except BackendDown as error:
            self._metrics.call_failed("down")
            answers = [Failure(Reason.UNAVAILABLE, str(error))] * len(leases)
        except (BackendError, BadOutput) as error:
            self._metrics.call_failed("bad_output" if isinstance(error, BadOutput) else "error")
            if len(leases) > 1:
                middle = len(leases) // 2
                for half in (leases[:middle], leases[middle:]):
                    await self._process(half, float("-inf"))
                return
            answers = [Failure(Reason.DEAD, str(error))]
            log.warning("there is no answer to a picture: %s", error)
        await asyncio.gather(*(self._finish(lease, outcome) for lease, outcome in zip(leases, answers, strict=True)))

    async def _wanted(self, leases: Sequence[Lease], asked_at: float) -> Sequence[Lease]:
        """Those that are still ours, not cancelled and not expired: nothing else may reach the backend.

        While others wait, a job that would expire in the backend is as good as expired. Under overload the
        oldest job is always such a one: begun nevertheless, it would cost the next one its time as well.
        """
        now = too_early = self._clock()
        needed_s = 2 * median(self._calls_s) if self._calls_s else 0.0  # to be computed, and to get there and back
        if any(lease.job.deadline <= now + needed_s for lease in leases) and await self._depth():
            too_early = now + needed_s
        for lease in leases:
            if lease.job.deadline <= too_early:
                await self._finish(lease, _EXPIRED)
        live = [lease for lease in leases if lease.job.deadline > too_early]
        return live if now - asked_at < _FRESH_S else await self._queue.renew(live)

    async def _answer(self, leases: Sequence[Lease]) -> list[Outcome]:
        """An outcome for each. Raises BackendError or BadOutput if the call fails as a whole."""
        started = self._clock()
        traces = [lease.job.trace for lease in leases]
        with tracing.shared(self._tracer, "infer", {"clicv2.batch_size": len(leases)}, traces):
            predictions = await self._infer(np.stack([lease.job.pixels for lease in leases]))
            inference_s = self._clock() - started
            self._metrics.took("inference", inference_s)  # within, so that its exemplar names the trace
        self._calls_s.append(inference_s)
        self._metrics.serves(self._backend.manifest)
        self._metrics.batch(len(leases))

        def outcome(index: int) -> Outcome:
            try:
                return Answer(predictions.at(index), inference_s)
            except BadOutput as error:
                with about(job_id=leases[index].job.id):
                    log.warning("there is no answer to a picture: %s", error)
                return Failure(Reason.DEAD, str(error))

        return [outcome(index) for index in range(len(leases))]

    async def _infer(self, images: Pixels) -> Predictions:
        """One backend call, uint8 [B, H, W, 3]. Raises BackendError, or BadOutput for tensors of a wrong shape."""
        predictions = await self._backend.infer(images)
        predictions.check_shapes(len(images), self._backend.manifest)
        self.answered_at = self._clock()
        return predictions

    async def _finish(self, lease: Lease, outcome: Outcome) -> None:
        self._held.pop(lease.job.id, None)
        if not await self._queue.finish(lease, outcome):
            self._metrics.fenced()

    async def _heal(self) -> None:
        """Not left to the lanes: while the backend is down no jobs come, and who waits for jobs would never look."""
        while True:
            if not self._backend.healthy:
                await self._queue.present(False)
                await self._backend.heal()
                await self._queue.present(not self.draining)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_every_s)
            await self._queue.present(self._backend.healthy and not self.draining)
            await self._queue.renew(list(self._held.values()))


_EXPIRED = Failure(Reason.EXPIRED, "the deadline passed before there was an answer")
