"""What the routes that score pictures are made of."""

from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from service.door import Door
from service.idempotency import Idempotency
from service.metrics import Metrics
from service.scoring import Scorer
from service.settings import Settings

# From a URL and a deadline, an instant of the monotonic clock, to the bytes that are there.
Fetch = Callable[[str, float], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Parts:
    """One for all of a gateway's routes.

    Attributes:
        pool: where pictures are decoded and rendered.
        fetch: None: no picture is taken by its URL.
    """

    settings: Settings
    door: Door
    scorer: Scorer
    pool: Executor
    metrics: Metrics
    idempotency: Idempotency
    fetch: Fetch | None = None
