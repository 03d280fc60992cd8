"""What is asked of whatever holds the API's jobs: many pictures each, for which nobody waits.

    upload   begin -> add, refuse, add, ... -> submit (or forget)
    driver   claim -> renew, renew, ... and take -> finish for each item -> release
    webhook  claim_hook -> settle_hook
    caller   look, events, forget

    draft --submit--> open --the last item's finish--> done ----a while later----> forgotten
                        |--too old--> expired ---------------------------^

An item may be worked on more than once: by a driver whose lease ran out, and by the one that has claimed the job
since. Its result is written once: `finish` is fenced by the lease, and an item that has its result takes no other.
Results keep the place at which they were written, so a page never changes once it is full.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Status = Literal["waiting", "running", "done", "expired"]
HookState = Literal["pending", "delivered", "failed"]

# What a job and an item cost beside their pictures and results.
JOB_BYTES = 2048
ITEM_BYTES = 768
# How long an unfinished upload is kept beyond its deadline, and pictures beyond the job's: whoever looks after
# that finds the job gone, never a job without pictures.
GRACE_S = 60.0
REUSED = "this Idempotency-Key came before with other pictures or options; a new job needs a new key"


@dataclass(frozen=True, slots=True)
class JobLimits:
    """What bounds jobs; the first five hold for all gateways together.

    Attributes:
        open_at_once: jobs that have not ended, uploads under way among them; more are refused with 429.
        held_bytes: of all jobs, ended ones among them: pictures, results, and what results will need at most.
        share: the part of these two, of `uploads` and of `streams` that one owner may take.
        ttl_s: how old an unfinished job may become, and how long an ended one is known.
        lease_s: a gateway's right to drive a job, renewed at a third of it.
        max_items: pictures in a job.
        max_bytes: of a job's body, as sent and, in an archive, as decompressed. A zip is held in memory.
        upload_s: from a job's first byte to its last.
        uploads: bodies on their way at once, in this process.
        driven: jobs that this process drives at once.
        lanes: pictures of one job that are inside at once.
        slice_s: after so long a job gives way to one that nobody drives.
        max_attempts: drivers that may die while they work on an item; then it has failed.
        max_page: results in an answer.
        streams: streams of events at once, in this process.
        heartbeat_s: a stream that has nothing to say says so; proxies close connections that are silent.
        poll_s: how often to look for jobs that other gateways let go of.
    """

    open_at_once: int
    held_bytes: int
    share: float
    ttl_s: float
    lease_s: float
    max_items: int
    max_bytes: int
    upload_s: float
    uploads: int
    driven: int
    lanes: int
    slice_s: float
    max_attempts: int
    max_page: int
    streams: int
    heartbeat_s: float
    poll_s: float = 0.5

    def most(self, of: int, owner: str) -> int:
        """How much of a limit an owner may take; all of it where callers are not told apart, and have no id."""
        return max(1, int(of * self.share)) if owner else of


@dataclass(frozen=True, slots=True)
class Draft:
    """A job whose body is on its way.

    Attributes:
        owner: the caller's id; nobody else ever sees the job.
        options: of each picture, as JSON.
        request_id: of the request that made it; each item's problem names it.
        webhook: where to tell that it has ended.
        result_bytes: the most that an item's result can take.
    """

    id: str
    owner: str
    options: str
    request_id: str = ""
    webhook: str | None = None
    result_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Earlier:
    """The job that an Idempotency-Key made before, and the digest of what it was made of."""

    id: str
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Where an item's picture comes from: either its bytes, or a URL.

    Attributes:
        name: as the sender calls it.
    """

    name: str
    data: bytes | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class End:
    """An item's end.

    Attributes:
        result: as callers get it, JSON.
        summary: the same without details, JSON.
    """

    scored: bool
    result: bytes
    summary: bytes


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to drive a job for a while.

    Attributes:
        fence: no earlier lease of the job has it; what is done with an older one is refused.
        left: places of the items without a result, each with how many drivers have begun and not finished it.
        abandoned: the driver before let its lease run out.
    """

    job_id: str
    fence: int
    options: str
    request_id: str
    left: Sequence[tuple[int, int]]
    abandoned: bool


@dataclass(frozen=True, slots=True)
class Renewed:
    """Whether a lease is still held, and how many jobs there are that nobody drives."""

    held: bool
    waiting: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """An item to work on; `attempt` counts from 1."""

    source: Source
    attempt: int


@dataclass(frozen=True, slots=True)
class Facts:
    """How a job stands. Instants are Unix time in seconds."""

    id: str
    status: Status
    items: int
    scored: int
    failed: int
    created_at: float
    ended_at: float | None
    expires_at: float
    hook: HookState | None = None
    hook_attempts: int = 0
    hook_detail: str = ""

    @property
    def left(self) -> int:
        return self.items - self.scored - self.failed

    @property
    def ended(self) -> bool:
        return self.status in ("done", "expired")


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """A job, and some of its results in the order in which they were written."""

    facts: Facts
    results: Sequence[bytes] = field(default=())


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """Something that happened to a job.

    Attributes:
        id: from 1, without gaps.
        summary: JSON; of the job's end its status.
        scored, failed: items by then.
    """

    id: int
    kind: Literal["item", "end"]
    summary: bytes
    scored: int
    failed: int


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook that is due.

    Attributes:
        attempt: from 1; it also fences `settle_hook`.
    """

    facts: Facts
    url: str
    attempt: int


class LeaseLost(Exception):
    """Somebody else drives the job by now, or nobody wants it any more."""


class Store(Protocol):
    """Holds jobs. Every method raises Unavailable when the store is out of reach, except `close`.

    Attributes:
        lasting: jobs outlive this process.
    """

    lasting: bool

    async def begin(self, draft: Draft, slot: str | None) -> Earlier | None:
        """Begin an upload; or, if a job of this slot (an Idempotency-Key) exists, return that and begin nothing.

        Raises JobsFull; JobShareTaken when it is the owner's own jobs that leave no room; JobTooLarge.
        """
        ...

    async def add(self, job_id: str, place: int, source: Source) -> None:
        """An item of an upload. Raises what `begin` does, and UnknownJob."""
        ...

    async def refuse(self, job_id: str, end: End) -> None:
        """An item of an upload that has its end already. Raises what `add` does."""
        ...

    async def submit(self, job_id: str, slot: str | None, digest: str) -> str:
        """End an upload: from now on the job exists. Returns its id; or that of the job which the slot has got
        meanwhile, and then the upload is forgotten.

        Raises KeyReused when that one was made of something else, UnknownJob.
        """
        ...

    async def forget(self, job_id: str, owner: str) -> None:
        """Raises UnknownJob."""
        ...

    async def look(self, job_id: str, owner: str, offset: int = 0, limit: int = 0) -> Page:
        """Raises UnknownJob."""
        ...

    async def events(self, job_id: str, owner: str, after: int, wait_s: float) -> Sequence[Event]:
        """Some of what came after an event; waits for the next one, and returns none if there was none in time.

        Raises UnknownJob, also when the job is forgotten meanwhile.
        """
        ...

    async def claim(self) -> Lease | None:
        """Lease the job that has been without a driver longest, and forget what is too old."""
        ...

    async def renew(self, lease: Lease) -> Renewed: ...

    async def take(self, lease: Lease, place: int) -> Taken | None:
        """Begin to work on an item; None if it has its result. Raises LeaseLost."""
        ...

    async def finish(self, lease: Lease, place: int, end: End) -> None:
        """Write an item's result, once; the last one ends the job. Raises LeaseLost."""
        ...

    async def release(self, lease: Lease, under_way: Sequence[int]) -> None:
        """Let somebody else drive the job at once. What is under way was not begun, as far as attempts count."""
        ...

    async def claim_hook(self, for_s: float) -> Hook | None:
        """A webhook that is due, for as long as nobody else shall deliver it."""
        ...

    async def settle_hook(self, hook: Hook, state: HookState, detail: str = "", again_in_s: float = 0.0) -> None:
        """How a delivery ended; `pending`: it is due again in `again_in_s`. No-op if another one has begun since."""
        ...

    async def held_bytes(self) -> int:
        """Counted, of all jobs."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
