"""When to stop asking a backend, and when to ask again: decisions only, no I/O and no clock of their own.

    closed --a fatal failure, or half of the last calls failed--> open
    open --a probe was answered--> closed

Half open is no state: callers never probe. Whoever owns the breaker sends one probe after the other.
"""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """When a breaker opens, and how often it lets through a probe.

    Attributes:
        failures: so many of the last `window` calls open it. To find one bad picture in a batch of 32
            takes 11 calls, of which 6 fail; that must not open it.
        window: calls that are remembered.
        probe_every_s: from the end of a probe that failed to the next. Promised is recovery within 2 s.
    """

    failures: int = 10
    window: int = 20
    probe_every_s: float = 0.25


class Breaker:
    """Open at first: nothing has been proved yet.

    Attributes:
        closed: calls may pass.
        why: the failure that opened it, or that of the last probe; meant for the caller.
        opened: how often it has opened.
        probe_at: instant from which the next probe may be sent.
    """

    def __init__(self, limits: BreakerLimits, why: str) -> None:
        self.closed = False
        self.why = why
        self.opened = 0
        self.probe_at = float("-inf")
        self._limits = limits
        self._failed: deque[bool] = deque(maxlen=limits.window)

    def succeeded(self) -> None:
        """A call was answered. Says nothing of an open breaker: the call had begun before."""
        self._failed.append(False)

    def failed(self, why: str, now: float, *, fatal: bool) -> None:
        """A call failed; fatal: the next would fail as well."""
        self._failed.append(True)
        if self.closed and (fatal or sum(self._failed) >= self._limits.failures):
            self.closed = False
            self.why = why
            self.opened += 1
            self.probe_at = now  # at once: what opened it may have been a hiccup

    def proved(self) -> None:
        """A probe was answered."""
        self.closed = True
        self._failed.clear()

    def disproved(self, why: str, now: float) -> None:
        """A probe failed."""
        self.why = why
        self.probe_at = now + self._limits.probe_every_s


class Progress:
    """Whether calls that wait get anywhere: a server that hangs answers nobody."""

    def __init__(self) -> None:
        self._waiting = 0
        self._since = float("-inf")

    @property
    def waiting(self) -> bool:
        return self._waiting > 0

    def began(self, now: float) -> None:
        if not self._waiting:
            self._since = now
        self._waiting += 1

    def ended(self, now: float, *, answered: bool) -> None:
        self._waiting -= 1
        if answered:
            self._since = now

    def quiet_s(self, now: float) -> float:
        """How long calls have been waiting without an answer to any of them."""
        return now - self._since if self._waiting else 0.0
