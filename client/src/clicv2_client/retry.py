"""When to try again, and when not (pure).

Full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/): callers who failed together do
not come back together.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class Retry:
    """How patiently a call is repeated; never longer than its time.

    Attributes:
        attempts: the most, the first one included; None: as many as there is time for.
        base_s: the longest pause after the first attempt; it doubles with each.
        most_s: the longest pause of all, unless the service asks for a longer one.
    """

    attempts: int | None = None
    base_s: float = 0.1
    most_s: float = 2.0

    def allows(self, failures: int) -> bool:
        """Whether there may be another attempt after so many."""
        return self.attempts is None or failures < self.attempts

    def pause_s(self, failures: int, retry_after_s: float | None, luck: float) -> float:
        """How long to wait after so many failures.

        Args:
            luck: uniform in [0, 1).
        """
        longest = min(self.most_s, self.base_s * 2.0 ** min(failures - 1, 60))
        return (retry_after_s or 0.0) + luck * longest


PATIENT = Retry()
NEVER = Retry(attempts=1)


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds of a Retry-After, which has either these or a date (RFC 9110, section 10.2.3); None if it has neither.

    Args:
        now: None: the time is asked for.
    """
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    if then.tzinfo is None:  # "-0000": a time whose zone nobody knows; HTTP's are in GMT
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())
