"""So much in so long: `10/second`, `600/minute`, `10000/day`. Pure."""

import re
from dataclasses import dataclass

_WINDOWS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_FORMAT = re.compile(rf"([1-9]\d{{0,9}}) ?/ ?({'|'.join(_WINDOWS)})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Allowance:
    """At most `amount` within a window.

    No months: they differ in length, and calendars belong to whoever writes the bill.

    Attributes:
        window_s: length of the window, a whole number as the RateLimit fields want it.
    """

    amount: int
    window_s: int

    @classmethod
    def parse(cls, text: str) -> "Allowance":
        """The allowance that is written `AMOUNT/second`, or minute, hour, day. Raises ValueError."""
        match = _FORMAT.fullmatch(text.strip())
        if not match:
            raise ValueError(f"{text!r} is no allowance: write e.g. 10/second; the others are minute, hour and day")
        return cls(int(match[1]), _WINDOWS[match[2]])

    def __str__(self) -> str:
        unit = next((name for name, window_s in _WINDOWS.items() if window_s == self.window_s), f"{self.window_s} s")
        return f"{self.amount}/{unit}"
