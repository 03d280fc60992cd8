"""What gateway and worker ask of the queue between them.

    gateway:  admit -> result (or cancel), while `listen` runs
    worker:   lease -> renew, renew, ... -> finish, and `present` all the while

Execution is at least once: a lease that is not renewed in time passes to another worker, with the
job's next attempt. The answer is visible exactly once: `finish` by a lost lease is fenced.

Every instant is one of this process's monotonic clock. A queue between processes, whose clocks have
nothing in common, translates where a job enters and where it leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from clicv2.imaging import Pixels
from service.prediction import Prediction


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One image awaiting one score.

    Attributes:
        id: unique.
        pixels: the model's input, uint8 [H, W, 3].
        deadline: instant after which nobody wants the answer.
        admitted_at: instant of its admission.
        attempt: how many leases there have been, from 1.
        trace: W3C traceparent of the span in which it was admitted; "" where nothing is recorded.
    """

    id: str
    pixels: Pixels
    deadline: float
    admitted_at: float
    attempt: int = 1
    trace: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """The right to work on a job for a while.

    Attributes:
        fence: number that no earlier lease of the job has; a finish with an older one is refused.
    """

    job: Job
    fence: int


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A job's good end.

    Attributes:
        inference_s: how long the backend call took.
    """

    prediction: Prediction
    inference_s: float


class Reason(StrEnum):
    """Why there is no answer.

    DEAD: the model has none for this picture, or every worker that tried it died; the job is set
        aside as a dead letter.
    EXPIRED: the deadline passed.
    UNAVAILABLE: the backend can serve nobody now.
    """

    DEAD = "dead"
    EXPIRED = "expired"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Failure:
    """A job's other end; `detail` is meant for the caller."""

    reason: Reason
    detail: str


Outcome = Answer | Failure


@dataclass(frozen=True, slots=True)
class Census:
    """What the queue holds at an instant.

    Attributes:
        waiting: jobs that wait for a lease.
        leased: jobs that a worker has.
        dead: dead letters that are kept.
        oldest_s: how long ago the oldest of the jobs was admitted.
        workers: those that are ready.
    """

    waiting: int
    leased: int
    dead: int
    oldest_s: float
    workers: int


class Queue(Protocol):
    """Jobs in order of admission, at most a counted capacity of them admitted and not finished.

    The worker's methods never fail for a queue that is out of reach: `lease` waits until it is
    back, `finish` tries until the job's deadline, and `renew` takes leases to be held that it cannot
    ask about. The gateway's raise Unavailable at once, for somebody is waiting.
    """

    async def listen(self) -> None:
        """Receive outcomes for `result` until cancelled; whatever escapes is a defect."""
        ...

    async def admit(self, job: Job) -> None:
        """Take a job.

        Raises Overloaded when the capacity is reached, Unavailable when the queue is out of reach or
        no worker is present that is ready.
        """
        ...

    async def result(self, job: Job) -> Outcome:
        """Wait for the outcome; Failure(EXPIRED) at the deadline. To be called once for a job."""
        ...

    async def cancel(self, job: Job) -> None:
        """Forget a job whose caller has gone, so that no worker leases it. No-op once it is finished."""
        ...

    async def lease(self, at_most: int, until: float | None = None) -> Sequence[Lease]:
        """Wait for jobs, then lease the oldest; empty if there is none by `until` (None: wait for ever).

        Jobs that are expired or cancelled are never leased.
        """
        ...

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Extend leases; returns, in order, those that are still held and whose job is still wanted."""
        ...

    async def finish(self, lease: Lease, outcome: Outcome) -> bool:
        """Store the outcome; False if it was fenced: the lease was lost or the job is no longer wanted."""
        ...

    async def present(self, ready: bool) -> None:
        """Tell gateways that this worker is here, and whether it is ready.

        One that does not repeat it within a lease is taken to be gone.
        """
        ...

    async def depth(self) -> int:
        """Jobs that wait for a lease. Raises Unavailable when the queue is out of reach."""
        ...

    async def census(self) -> Census:
        """Count what there is. Raises Unavailable when the queue is out of reach."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
