"""Many pictures of one request: taken as they arrive, a few at a time, each to an end of its own.

    items --(one waits at most)--> lanes --> ends, as they come

What is in memory is bounded by the lanes and not by the items. A lane that finds the door or the queue full
waits: the pictures have been sent, and the sender has been told by the door before that there is room. So a
batch takes what others leave; it has at most as many pictures inside as it has lanes.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from service.door import Door
from service.errors import Overloaded
from service.items import Item

EndT = TypeVar("EndT")
T = TypeVar("T")

# How long a lane waits before it asks again: longer each time, and not all lanes at once.
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5


class Batches:
    """Counts the batches inside: each may hold a whole archive."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.in_flight = 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Raises Overloaded."""
        if self.in_flight >= self._capacity:
            raise Overloaded("batches", self._capacity)
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1


class Places:
    """A request's own place behind the door, and those that its other pictures find.

    With a place of its own it gets on, however full it is; and whoever drains the process sees that it is there.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._own_is_free = True

    async def enter(self, work: Callable[[], Awaitable[T]], deadline: float) -> T:
        """Do the work inside; wait for a place, in the queue too, until the deadline. Raises Overloaded then."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                with self._place():
                    return await work()
            except Overloaded:
                wait_s = pause_s * random.uniform(0.5, 1.0)
                if time.monotonic() + wait_s >= deadline:
                    raise
            await asyncio.sleep(wait_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._own_is_free:
            with self._door.entered():
                yield
            return
        self._own_is_free = False
        try:
            yield
        finally:
            self._own_is_free = True


class Bulk(Generic[EndT]):
    """Takes items to their ends, from `start` until all are there or `close`.

    Args:
        items: what `service.ingest.read_items` gives.
        complete: set when the items' body has arrived.
        work: from an item and its place to its end; what it raises ends the whole.
    """

    def __init__(
        self,
        items: AsyncIterator[Item],
        complete: asyncio.Event,
        work: Callable[[int, Item], Awaitable[EndT]],
        *,
        lanes: int,
    ) -> None:
        self._items = items
        self._complete = complete
        self._work = work
        self._lanes = lanes
        self._handed: asyncio.Queue[tuple[int, Item] | None] = asyncio.Queue(1)
        self._ends: asyncio.Queue[tuple[int, EndT] | None] = asyncio.Queue()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.create_task(self._run(), name="bulk")

    async def arrived(self) -> None:
        """Wait until the body has arrived. Raises what is wrong with it, or what `work` raises."""
        waiting = asyncio.create_task(self._complete.wait())
        try:
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task.done():
            self._task.result()

    async def ends(self) -> AsyncGenerator[tuple[int, EndT], None]:
        """The ends, each with its item's place, as they come. Raises what `work` raises."""
        while (end := await self._ends.get()) is not None:
            yield end
        await self._task

    async def close(self) -> None:
        """Stop; what is under way is cancelled, and its jobs with it."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()  # whoever was to know of it has been told

    @property
    def _task(self) -> asyncio.Task[None]:
        assert self._running, "not started"  # noqa: S101  # of the one caller, a few lines before
        return self._running

    async def _run(self) -> None:
        tasks = [asyncio.create_task(self._feed())]
        tasks += [asyncio.create_task(self._lane()) for _ in range(self._lanes)]
        try:
            await asyncio.gather(*tasks)  # and not a TaskGroup: an error is to come out as it is
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._ends.put_nowait(None)

    async def _feed(self) -> None:
        """One task takes the items, for what reads them waits with a timeout, and that belongs to one task."""
        place = 0
        async for item in self._items:
            await self._handed.put((place, item))
            place += 1
        for _ in range(self._lanes):
            await self._handed.put(None)

    async def _lane(self) -> None:
        while (handed := await self._handed.get()) is not None:
            place, item = handed
            self._ends.put_nowait((place, await self._work(place, item)))
