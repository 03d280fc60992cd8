"""Jobs in this process's memory: bounded like those in Redis, and gone with the process."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from service.errors import JobsFull, JobShareTaken, JobTooLarge, KeyReused, UnknownJob
from service.jobs.protocol import (
    GRACE_S,
    ITEM_BYTES,
    JOB_BYTES,
    REUSED,
    Draft,
    Earlier,
    End,
    Event,
    Facts,
    Hook,
    HookState,
    JobLimits,
    Lease,
    LeaseLost,
    Page,
    Renewed,
    Source,
    Status,
    Taken,
)

_State = Literal["draft", "open", "done", "expired"]


@dataclass(slots=True, eq=False)
class _Item:
    source: Source
    counted: int
    attempts: int = 0


@dataclass(slots=True, eq=False)
class _Job:
    """Instants are of the store's clock.

    Attributes:
        free_since: since when nobody drives it; while somebody does, until when.
        expires: when it is too old.
        held: bytes that are counted.
        items: those without a result, by place.
    """

    draft: Draft
    expires: float
    created: float
    state: _State = "draft"
    ended: float | None = None
    free_since: float = float("inf")
    fence: int = 0
    driven: bool = False
    count: int = 0
    scored: int = 0
    failed: int = 0
    held: int = 0
    slot: str | None = None
    digest: str = ""
    items: dict[int, _Item] = field(default_factory=dict)
    results: list[bytes] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    hook: HookState | None = None
    hook_due: float | None = None
    hook_attempts: int = 0
    hook_detail: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class MemoryStore:
    """See `service.jobs.protocol.Store`.

    Args:
        clock: Unix time, for callers are told instants.
    """

    lasting = False

    def __init__(self, limits: JobLimits, *, clock: Callable[[], float] = time.time) -> None:
        self._limits = limits
        self._clock = clock
        self._jobs: dict[str, _Job] = {}
        self._slots: dict[str, str] = {}
        self._bytes = 0
        self._bytes_of: Counter[str] = Counter()  # by owner

    async def begin(self, draft: Draft, slot: str | None) -> Earlier | None:
        self._sweep()
        known = self._jobs.get(self._slots.get(slot or "", ""))
        if known:
            return Earlier(known.draft.id, known.digest)
        unfinished = [job.draft.owner for job in self._jobs.values() if job.state in ("draft", "open")]
        if len(unfinished) >= self._limits.open_at_once:
            raise JobsFull("jobs", self._limits.open_at_once)
        share = self._limits.most(self._limits.open_at_once, draft.owner)
        if unfinished.count(draft.owner) >= share:
            raise JobShareTaken("jobs", share)
        now = self._clock()
        job = _Job(draft, now + self._limits.upload_s + GRACE_S, now)
        self._check_bytes(job, JOB_BYTES)
        self._jobs[draft.id] = job
        self._count(job, JOB_BYTES)
        return None

    async def add(self, job_id: str, place: int, source: Source) -> None:
        job = self._draft(job_id)
        counted = len(source.data or b"") + ITEM_BYTES + job.draft.result_bytes
        self._check_bytes(job, counted)
        self._count(job, counted)
        job.count += 1
        job.items[place] = _Item(source, counted)

    async def refuse(self, job_id: str, end: End) -> None:
        job = self._draft(job_id)
        self._check_bytes(job, ITEM_BYTES + len(end.result))
        job.count += 1
        self._count(job, ITEM_BYTES)
        self._append(job, end, 0)

    async def submit(self, job_id: str, slot: str | None, digest: str) -> str:
        job = self._draft(job_id)
        known = self._jobs.get(self._slots.get(slot or "", ""))
        if known:
            self._forget(job)
            if known.digest != digest:
                raise KeyReused(REUSED)
            return known.draft.id
        now = self._clock()
        if slot:
            self._slots[slot] = job_id
        job.slot, job.digest = slot, digest
        job.state, job.created, job.free_since = "open", now, now
        job.expires = now + self._limits.ttl_s
        if job.draft.webhook:
            job.hook = "pending"
        if not job.items:
            self._end(job, "done")
        return job_id

    async def forget(self, job_id: str, owner: str) -> None:
        job = self._jobs.get(job_id)
        if job is None or job.draft.owner != owner:
            raise UnknownJob
        self._forget(job)

    async def look(self, job_id: str, owner: str, offset: int = 0, limit: int = 0) -> Page:
        job = self._seen(job_id, owner)
        return Page(self._facts(job), job.results[offset : offset + limit])

    async def events(self, job_id: str, owner: str, after: int, wait_s: float) -> Sequence[Event]:
        job = self._seen(job_id, owner)
        if len(job.events) <= after:
            job.changed.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await job.changed.wait()
            except TimeoutError:
                pass
            self._seen(job_id, owner)
        return job.events[after:]

    async def claim(self) -> Lease | None:
        self._sweep()
        now = self._clock()
        free = [job for job in self._jobs.values() if job.state == "open" and job.free_since <= now]
        if not free:
            return None
        job = min(free, key=lambda each: each.free_since)
        abandoned, job.driven = job.driven, True
        job.free_since = now + self._limits.lease_s
        job.fence += 1
        left = [(place, item.attempts) for place, item in sorted(job.items.items())]
        return Lease(job.draft.id, job.fence, job.draft.options, job.draft.request_id, left, abandoned)

    async def renew(self, lease: Lease) -> Renewed:
        now = self._clock()
        held = self._leased(lease)
        if held:
            held.free_since = now + self._limits.lease_s
        waiting = sum(job.state == "open" and job.free_since <= now for job in self._jobs.values())
        return Renewed(held is not None, waiting)

    async def take(self, lease: Lease, place: int) -> Taken | None:
        job = self._leased(lease)
        if job is None:
            raise LeaseLost
        item = job.items.get(place)
        if item is None:
            return None
        item.attempts += 1
        return Taken(item.source, item.attempts)

    async def finish(self, lease: Lease, place: int, end: End) -> None:
        job = self._jobs.get(lease.job_id)
        if job is None or job.fence != lease.fence or job.state == "expired":
            raise LeaseLost
        item = job.items.pop(place, None)
        if item is None:
            return
        self._append(job, end, item.counted - ITEM_BYTES)
        if not job.items:
            self._end(job, "done")

    async def release(self, lease: Lease, under_way: Sequence[int]) -> None:
        job = self._leased(lease)
        if job is None:
            return
        job.driven, job.free_since = False, self._clock()
        for place in under_way:
            if place in job.items:
                job.items[place].attempts = max(0, job.items[place].attempts - 1)

    async def claim_hook(self, for_s: float) -> Hook | None:
        now = self._clock()
        due = [(job.hook_due, job) for job in self._jobs.values() if job.hook_due is not None and job.hook_due <= now]
        if not due:
            return None
        _, job = min(due, key=lambda each: each[0])
        job.hook_due = now + for_s
        job.hook_attempts += 1
        return Hook(self._facts(job), job.draft.webhook or "", job.hook_attempts)

    async def settle_hook(self, hook: Hook, state: HookState, detail: str = "", again_in_s: float = 0.0) -> None:
        job = self._jobs.get(hook.facts.id)
        if job is None or job.hook_due is None or job.hook_attempts != hook.attempt:
            return
        job.hook, job.hook_detail = state, detail
        job.hook_due = self._clock() + again_in_s if state == "pending" else None

    async def held_bytes(self) -> int:
        return self._bytes

    async def close(self) -> None:
        for job in self._jobs.values():
            job.changed.set()
        self._jobs.clear()

    def _draft(self, job_id: str) -> _Job:
        job = self._jobs.get(job_id)
        if job is None or job.state != "draft":
            raise UnknownJob
        return job

    def _seen(self, job_id: str, owner: str) -> _Job:
        job = self._jobs.get(job_id)
        if job is None or job.state == "draft" or job.draft.owner != owner:
            raise UnknownJob
        return job

    def _leased(self, lease: Lease) -> _Job | None:
        job = self._jobs.get(lease.job_id)
        return job if job and job.state == "open" and job.fence == lease.fence else None

    def _check_bytes(self, job: _Job, more: int) -> None:
        """Raises JobTooLarge, JobShareTaken, JobsFull."""
        owner, most = job.draft.owner, self._limits.held_bytes
        share = self._limits.most(most, owner)
        if job.held + more > share:
            raise JobTooLarge(share)
        if self._bytes + more > most:
            raise JobsFull("job-bytes", most)
        if self._bytes_of[owner] + more > share:
            raise JobShareTaken("job-bytes", share)

    def _count(self, job: _Job, size: int) -> None:
        job.held += size
        self._bytes += size
        self._bytes_of[job.draft.owner] += size

    def _append(self, job: _Job, end: End, counted: int) -> None:
        """An item gets its end, and what was counted for it gives way to its result."""
        job.results.append(end.result)
        job.scored += end.scored
        job.failed += not end.scored
        self._count(job, len(end.result) - counted)
        self._tell(job, Event(len(job.events) + 1, "item", end.summary, job.scored, job.failed))

    def _end(self, job: _Job, state: Literal["done", "expired"]) -> None:
        now = self._clock()
        self._count(job, -sum(item.counted for item in job.items.values()))
        job.items.clear()
        job.state, job.ended, job.driven = state, now, False
        job.expires = now + self._limits.ttl_s
        if job.draft.webhook:
            job.hook_due = now
        self._tell(job, Event(len(job.events) + 1, "end", state.encode(), job.scored, job.failed))

    def _tell(self, job: _Job, event: Event) -> None:
        job.events.append(event)
        job.changed.set()

    def _forget(self, job: _Job) -> None:
        del self._jobs[job.draft.id]
        self._count(job, -job.held)
        if not self._bytes_of[job.draft.owner]:
            del self._bytes_of[job.draft.owner]
        if job.slot and self._slots.get(job.slot) == job.draft.id:
            del self._slots[job.slot]
        job.changed.set()

    def _sweep(self) -> None:
        now = self._clock()
        for job in [job for job in self._jobs.values() if job.expires <= now]:
            if job.state == "open":
                self._end(job, "expired")
            else:
                self._forget(job)

    def _facts(self, job: _Job) -> Facts:
        status: Status = "done" if job.state == "done" else "expired"
        if job.state == "open":
            status = "running" if job.free_since > self._clock() else "waiting"
        return Facts(
            id=job.draft.id,
            status=status,
            items=job.count,
            scored=job.scored,
            failed=job.failed,
            created_at=job.created,
            ended_at=job.ended,
            expires_at=job.expires,
            hook=job.hook,
            hook_attempts=job.hook_attempts,
            hook_detail=job.hook_detail,
        )
