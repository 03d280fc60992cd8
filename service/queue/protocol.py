"""What gateway and worker ask of the queue between them.

    gateway:  admit -> result (or cancel)
    worker:   lease -> renew, renew, ... -> finish

Execution is at least once: a lease that is not renewed in time passes to another worker, with the
job's next attempt. The answer is visible exactly once: `finish` by a lost lease is fenced.
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
        deadline: instant on the queue's clock after which nobody wants the answer.
        admitted_at: instant on the same clock.
        attempt: how many leases there have been, from 1.
    """

    id: str
    pixels: Pixels
    deadline: float
    admitted_at: float
    attempt: int = 1


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
    """Why there is no answer."""

    FAILED = "failed"
    EXPIRED = "expired"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Failure:
    """A job's other end; `detail` is meant for the caller."""

    reason: Reason
    detail: str


Outcome = Answer | Failure


class Queue(Protocol):
    """Jobs in order of admission, at most a counted capacity of them admitted and not finished."""

    async def admit(self, job: Job) -> None:
        """Take a job. Raises Overloaded when the capacity is reached, Unavailable when the queue is."""
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

    async def depth(self) -> int:
        """Jobs that wait for a lease."""
        ...
