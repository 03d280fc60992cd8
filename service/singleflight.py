"""Identical work that is wanted by several at once is done once.

    who comes first starts a flight; who comes meanwhile waits for it too

A flight belongs to nobody: it goes on while anybody waits, and is cancelled when the last one has left. Each waits
to his own deadline. Whoever comes after it was abandoned waits until it has ended: what is cancelled may still be
under way.

What a flight ends with is told to all who wait. But some errors are of the moment, e.g. that the queue was full when
the one who came first asked: he has had his chance, and those who joined him try once more, together. So such an
error costs one more flight and not one for each of them, and nobody is refused for what happened before he came.
An expired deadline is only that of those who had it: others go on as often as their own allows.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, Protocol, TypeVar

from service.errors import DeadlineExceeded

T = TypeVar("T")


class Wanted(Protocol):
    """How long a flight's work is wanted.

    Attributes:
        until: the latest deadline of those who wait; who comes and who leaves may change it.
    """

    @property
    def until(self) -> float: ...


class _Flight(Generic[T]):
    """Work under way, and the deadlines of those who wait for it."""

    def __init__(self, work: Callable[[Wanted], Coroutine[Any, Any, T]]) -> None:
        self.deadlines: dict[object, float] = {}
        self.abandoned = False
        self.task = asyncio.create_task(work(self))

    @property
    def until(self) -> float:
        return max(self.deadlines.values(), default=float("-inf"))

    async def wait(self, deadline: float, timeout_s: float) -> bool:
        """Be one of those who wait; whether it ended in time."""
        caller = object()
        self.deadlines[caller] = deadline
        try:
            done, _ = await asyncio.wait({self.task}, timeout=timeout_s)  # does not cancel what it waits for
        finally:
            del self.deadlines[caller]
            if not self.deadlines and not self.task.done():
                self.abandoned = True
                self.task.cancel()
        return bool(done)


class SingleFlight(Generic[T]):
    """Shares work by key, within one event loop.

    Args:
        lasting: whether an error would be the same for everybody, and whenever it is tried again.
    """

    def __init__(self, lasting: Callable[[Exception], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._lasting = lasting
        self._clock = clock
        self._flights: dict[Hashable, _Flight[T]] = {}

    def __len__(self) -> int:
        """Flights under way, those included that were abandoned and have not ended."""
        return len(self._flights)

    async def share(
        self, key: Hashable, deadline: float, work: Callable[[Wanted], Coroutine[Any, Any, T]]
    ) -> tuple[T, bool]:
        """What the work yields, and whether it was somebody else's.

        Args:
            deadline: an instant on the clock.
            work: must end soon when it is cancelled. Not called if there is a flight.

        Raises DeadlineExceeded, and whatever the work raises.
        """
        tried_again = False
        while True:
            flight = self._flights.get(key)
            joined = flight is not None and not flight.task.done()
            if flight is None or not joined:
                flight = self._start(key, work)
            elif flight.abandoned:
                await self._end_of(flight, deadline)
                continue
            if not await flight.wait(deadline, self._remaining_s(deadline)):
                raise DeadlineExceeded("the deadline passed before there was an answer")
            try:
                return flight.task.result(), joined
            except DeadlineExceeded:
                if not joined or self._remaining_s(deadline) == 0:
                    raise
            except Exception as error:
                if not joined or tried_again or self._lasting(error):
                    raise
                tried_again = True

    def _start(self, key: Hashable, work: Callable[[Wanted], Coroutine[Any, Any, T]]) -> _Flight[T]:
        flight = self._flights[key] = _Flight(work)

        def land(task: asyncio.Task[T]) -> None:
            if not task.cancelled():
                task.exception()  # perhaps nobody asks
            if self._flights.get(key) is flight:
                del self._flights[key]

        flight.task.add_done_callback(land)
        return flight

    async def _end_of(self, flight: _Flight[T], deadline: float) -> None:
        """Raises DeadlineExceeded."""
        done, _ = await asyncio.wait({flight.task}, timeout=self._remaining_s(deadline))
        if not done:
            raise DeadlineExceeded("the deadline passed before there was an answer")

    def _remaining_s(self, deadline: float) -> float:
        return max(0.0, deadline - self._clock())
