"""Which jobs go to the backend together, and when. Pure: no I/O, and no clock of its own.

- dispatch at once when the backend is idle: a lone job never waits for company;
- gather while it is busy: jobs that arrive in the meantime wait in the queue, and leave it together;
- leave no slot idle: what waits is shared out over the slots, a fraction of it to each batch;
- a maximum size and a maximum delay bound the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What batching needs to know of a job.

    Attributes:
        admitted_at, deadline: instants, in seconds of one clock.
    """

    @property
    def admitted_at(self) -> float: ...

    @property
    def deadline(self) -> float: ...


JobT = TypeVar("JobT", bound=Waiting)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What bounds a batch.

    Attributes:
        max_size: jobs in a batch.
        max_delay_s: how long, counted from its admission, a job may wait for company while other
            slots are busy; 0 on a CPU, where a job gains nothing from company.
        slots: calls that the backend runs at once.
    """

    max_size: int
    max_delay_s: float
    slots: int


@dataclass(frozen=True, slots=True)
class Decision(Generic[JobT]):
    """What an idle slot is to do now: run `batch`, or, if that is empty, lease more and decide again.

    Attributes:
        batch: jobs for the backend, in the order given.
        expired: jobs that must not reach it.
        lease: how many more jobs to lease.
        until: instant at which to decide again, whatever arrives; None: when a job arrives.
    """

    batch: tuple[JobT, ...] = ()
    expired: tuple[JobT, ...] = ()
    lease: int = 0
    until: float | None = None


def decide(held: Sequence[JobT], now: float, *, depth: int, busy: int, limits: BatchLimits) -> Decision[JobT]:
    """Decide for one idle slot.

    Args:
        held: jobs already leased for it, oldest first; at most `limits.max_size`.
        now: this instant.
        depth: jobs that wait in the queue.
        busy: other slots that are running a batch.
    """
    live = tuple(job for job in held if job.deadline > now)
    expired = tuple(job for job in held if job.deadline <= now)
    if not live:
        share = ceil(depth / limits.slots)
        return Decision(expired=expired, lease=min(max(1, share), limits.max_size))
    # The delay ends early for a job that would expire in it: late company is no use to that one.
    leave_at = min(live[0].admitted_at + limits.max_delay_s, *(job.deadline - limits.max_delay_s for job in live))
    if busy == 0 or len(live) >= limits.max_size or now >= leave_at:
        return Decision(batch=live, expired=expired)
    return Decision(expired=expired, lease=limits.max_size - len(live), until=leave_at)
