"""Who may enter: a counted limit, and whether the process is draining. Refuses at once; nobody waits at a door."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import Draining, Overloaded


class Door:
    """Counts the pictures between a complete upload and the answer.

    Slow uploads are not counted: a thousand of them would otherwise lock everybody else out.

    Attributes:
        in_flight: how many are inside.
        draining: no new request is let in.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.in_flight = 0
        self.draining = False

    def drain(self) -> None:
        self.draining = True

    def check(self) -> None:
        """For a request that begins: raises Draining or Overloaded if it could not enter now."""
        if self.draining:
            raise Draining
        self._check_capacity()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be counted while inside. Raises Overloaded. What began before the draining may still enter."""
        self._check_capacity()
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def _check_capacity(self) -> None:
        if self.in_flight >= self._capacity:
            raise Overloaded("requests", self._capacity)
