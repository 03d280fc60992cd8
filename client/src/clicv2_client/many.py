"""Many pictures at once, in order, of which only a few are held at any time.

At most twice as many as there are lanes: those on their way, and those that wait for an earlier one to be done.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from clicv2_client.errors import Clicv2Error
from clicv2_client.pictures import Picture
from clicv2_client.results import Complexity

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Scored:
    """How one of many pictures ended: with a result or an error, never both.

    Attributes:
        index: its place among those given, from 0.
        picture: as it was given.
    """

    index: int
    picture: Picture
    result: Complexity | None = None
    error: Clicv2Error | None = None

    def unwrap(self) -> Complexity:
        """The result. Raises the error if there is none."""
        if self.result is None:
            raise self.error or AssertionError("neither a result nor an error")
        return self.result


def in_order(
    items: Iterable[T], work: Callable[[int, T], R], lanes: int, over: Callable[[], None] = lambda: None
) -> Generator[R, None, None]:
    """`work` of each item and its place, in threads; the items are taken in the caller's.

    Args:
        over: called when nobody takes results any more, before what is still worked on is waited for.

    Raises ValueError if there are no lanes.
    """
    _check(lanes)
    return _in_order(items, work, lanes, over)


def _in_order(
    items: Iterable[T], work: Callable[[int, T], R], lanes: int, over: Callable[[], None]
) -> Generator[R, None, None]:
    window: deque[Future[R]] = deque()
    source = enumerate(items)
    broken: Exception | None = None
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="clicv2-client")
    try:
        while True:
            try:
                place, item = next(source)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001  # the items' own, raised when what came before them is done
                broken = error
                break
            window.append(pool.submit(work, place, item))
            while window and (window[0].done() or len(window) >= 2 * lanes):
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        over()
        pool.shutdown(wait=True, cancel_futures=True)
    if broken is not None:
        raise broken


def in_order_async(
    items: Iterable[T] | AsyncIterable[T], work: Callable[[int, T], Awaitable[R]], lanes: int
) -> AsyncGenerator[R, None]:
    """`work` of each item and its place, in tasks.

    Raises ValueError if there are no lanes.
    """
    _check(lanes)
    return _in_order_async(items, work, lanes)


async def _in_order_async(
    items: Iterable[T] | AsyncIterable[T], work: Callable[[int, T], Awaitable[R]], lanes: int
) -> AsyncGenerator[R, None]:
    working = asyncio.Semaphore(lanes)
    room = asyncio.Semaphore(2 * lanes)
    begun: asyncio.Queue[asyncio.Task[R] | None] = asyncio.Queue()
    tasks: set[asyncio.Task[R]] = set()

    async def lane(place: int, item: T) -> R:
        async with working:
            return await work(place, item)

    async def begin() -> None:
        place = 0
        try:
            async with aclosing(_each(items)) as each:
                await room.acquire()  # before an item is taken, not after
                async for item in each:
                    task = asyncio.create_task(lane(place, item))
                    tasks.add(task)
                    begun.put_nowait(task)
                    place += 1
                    await room.acquire()
        finally:
            begun.put_nowait(None)

    beginner = asyncio.create_task(begin())
    try:
        while (task := await begun.get()) is not None:
            result = await task
            tasks.discard(task)
            yield result
            room.release()
        await beginner  # what the items themselves raised
    finally:
        for unfinished in (beginner, *tasks):
            unfinished.cancel()
        await asyncio.gather(beginner, *tasks, return_exceptions=True)


def _check(lanes: int) -> None:
    if lanes < 1:
        raise ValueError(f"concurrency must be 1 or more, not {lanes}")


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[T, None]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
