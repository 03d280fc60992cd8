"""The embedded queue: gateway and worker share one event loop."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from service.errors import NoWorker, Overloaded
from service.queue.protocol import Census, Failure, Job, Lease, Outcome, Reason


@dataclass(slots=True)
class _Entry:
    """A job that is admitted and not finished; `fence` is 0 while it waits for a lease."""

    job: Job
    callers: dict[Job, asyncio.Future[Outcome]]  # by the job as each of them admitted it
    fence: int = 0
    leased_until: float = 0.0

    @property
    def wanted(self) -> bool:
        """False in the very moment in which its last caller is cancelled."""
        return not all(outcome.done() for outcome in self.callers.values())


class MemoryQueue:
    """See `service.queue.protocol.Queue`. Not safe to call from other threads."""

    def __init__(self, *, capacity: int, lease_s: float, max_attempts: int, clock: Callable[[], float]) -> None:
        self._capacity = capacity
        self._lease_s = lease_s
        self._max_attempts = max_attempts
        self._clock = clock
        self._fences = itertools.count(1)
        self._entries: dict[str, _Entry] = {}
        self._waiting: deque[_Entry] = deque()
        self._outcomes: dict[Job, asyncio.Future[Outcome]] = {}  # until `result` or `cancel` takes them
        self._idle: deque[asyncio.Future[None]] = deque()  # callers of `lease` who found nothing
        self._reclaiming = False
        self._worker_ready = False

    async def listen(self) -> None:
        await asyncio.get_running_loop().create_future()  # `finish` reaches `result` by itself

    async def admit(self, job: Job) -> None:
        joined = self._entries.get(job.id)
        if joined is None and not self._worker_ready:
            raise NoWorker
        if joined is None and len(self._entries) >= self._capacity:
            raise Overloaded("queue", self._capacity)
        self._outcomes[job] = outcome = asyncio.get_running_loop().create_future()
        if joined:
            joined.callers[job] = outcome
            joined.job = replace(joined.job, deadline=max(joined.job.deadline, job.deadline))
            return
        self._entries[job.id] = entry = _Entry(job, {job: outcome})
        self._waiting.append(entry)
        self._wake_one()

    async def result(self, job: Job) -> Outcome:
        outcome = self._outcomes.pop(job)
        try:
            async with asyncio.timeout(max(0.0, job.deadline - self._clock())):
                return await outcome
        except TimeoutError:
            self._forget(job)
            return _expired()

    async def cancel(self, job: Job) -> None:
        self._outcomes.pop(job, None)
        self._forget(job)

    async def lease(self, at_most: int, until: float | None = None) -> Sequence[Lease]:
        while not (leases := self._lease_oldest(at_most)):
            timeout_s = None if until is None else until - self._clock()
            if timeout_s is not None and timeout_s <= 0:
                break
            await self._job_or(timeout_s)
        return leases

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        held = [lease for lease in leases if self._entry_of(lease)]
        until = self._clock() + self._lease_s
        for lease in held:
            self._entries[lease.job.id].leased_until = until
        return held

    async def finish(self, lease: Lease, outcome: Outcome) -> bool:
        entry = self._entry_of(lease)
        if entry is None:
            return False
        self._close(entry, outcome)
        return True

    async def present(self, ready: bool) -> None:
        self._worker_ready = ready  # not forgotten with time: this worker cannot vanish without the queue

    async def depth(self) -> int:
        return len(self._waiting)

    async def census(self) -> Census:
        now = self._clock()
        oldest = min((entry.job.admitted_at for entry in self._entries.values()), default=now)
        return Census(
            waiting=len(self._waiting),
            leased=len(self._entries) - len(self._waiting),
            dead=0,  # who asked has been told; nothing is kept
            oldest_s=now - oldest,
            workers=int(self._worker_ready),
        )

    async def close(self) -> None:
        pass

    def _entry_of(self, lease: Lease) -> _Entry | None:
        """The leased job's entry; None if the lease was lost or the job is no longer wanted."""
        entry = self._entries.get(lease.job.id)
        return entry if entry and entry.fence == lease.fence and entry.wanted else None

    def _lease_oldest(self, at_most: int) -> list[Lease]:
        now = self._clock()
        leases: list[Lease] = []
        while self._waiting and len(leases) < at_most:
            entry = self._waiting.popleft()
            if entry.job.deadline <= now:
                self._close(entry, _expired())
                continue
            entry.fence = next(self._fences)
            entry.leased_until = now + self._lease_s
            leases.append(Lease(entry.job, entry.fence))
        if leases:
            self._reclaim_later(self._lease_s)
        return leases

    def _close(self, entry: _Entry, outcome: Outcome) -> None:
        del self._entries[entry.job.id]
        for waiting in entry.callers.values():
            if not waiting.done():  # done: this caller was cancelled this very moment
                waiting.set_result(outcome)

    def _forget(self, job: Job) -> None:
        """One caller leaves; the job goes with the last one."""
        entry = self._entries.get(job.id)
        if entry is None or entry.callers.pop(job, None) is None or entry.callers:
            return
        del self._entries[job.id]
        if not entry.fence:
            self._waiting.remove(entry)

    async def _job_or(self, timeout_s: float | None) -> None:
        """Wait until a job arrives, at most `timeout_s`."""
        arrival = asyncio.get_running_loop().create_future()
        self._idle.append(arrival)
        try:
            await asyncio.wait_for(arrival, timeout_s)
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            if arrival.done() and not arrival.cancelled():
                self._wake_one()  # woken and cancelled at once: pass the job on
            raise
        finally:
            if arrival in self._idle:
                self._idle.remove(arrival)

    def _wake_one(self) -> None:
        while self._idle:
            arrival = self._idle.popleft()
            if not arrival.done():
                arrival.set_result(None)
                return

    def _reclaim_later(self, delay_s: float) -> None:
        if not self._reclaiming:
            self._reclaiming = True
            asyncio.get_running_loop().call_later(delay_s, self._reclaim)

    def _reclaim(self) -> None:
        """Give jobs whose worker let its lease run out to the next one; give up after the last attempt."""
        self._reclaiming = False
        now = self._clock()
        leased = [entry for entry in self._entries.values() if entry.fence]
        for entry in leased:
            if entry.leased_until > now:
                continue
            if entry.job.attempt >= self._max_attempts:
                detail = f"no worker finished the picture in {self._max_attempts} attempts"
                self._close(entry, Failure(Reason.DEAD, detail))
                continue
            entry.job = replace(entry.job, attempt=entry.job.attempt + 1)
            entry.fence = 0
            self._waiting.appendleft(entry)
            self._wake_one()
        still = [entry.leased_until for entry in leased if entry.fence and entry.job.id in self._entries]
        if still:
            self._reclaim_later(min(still) - now)


def _expired() -> Failure:
    return Failure(Reason.EXPIRED, "the deadline passed before there was an answer")
