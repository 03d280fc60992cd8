"""What the routes of jobs are made of."""

from dataclasses import dataclass

from service.jobs.protocol import JobLimits, Store
from service.jobs.runner import Runner
from service.jobs.webhook import Webhooks


@dataclass(frozen=True, slots=True)
class Jobs:
    """One for a gateway.

    Attributes:
        by_key: callers need API keys, so that a job is its maker's alone; else it is anybody's who knows its id.
        webhooks: None: none are sent.
    """

    store: Store
    runner: Runner
    limits: JobLimits
    by_key: bool
    webhooks: Webhooks | None = None
