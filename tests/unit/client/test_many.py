"""Many at once: in order, few at a time, and only as many as somebody wants."""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
from clicv2_client import AsyncClient, Client
from clicv2_client.errors import Clicv2Error, ConnectionFailed, UnsupportedImage
from clicv2_client.many import in_order, in_order_async
from clicv2_client.retry import NEVER
from clicv2_client.testing import FakeService

pytestmark = pytest.mark.anyio
LANES = [1, 2, 7]


class Watched:
    """Numbers without end; knows how many were taken and how many are worked on."""

    def __init__(self) -> None:
        self.taken = 0
        self.working = 0
        self.most = 0
        self.threads: set[int] = set()
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count():
            self.threads.add(threading.get_ident())
            self.taken += 1
            yield number

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in itertools.count():
            await asyncio.sleep(0)
            self.taken += 1
            yield number

    def _count(self, by: int) -> None:
        with self._lock:
            self.working += by
            self.most = max(self.most, self.working)

    def square(self, place: int, number: int) -> int:
        self._count(1)
        time.sleep(random.random() / 300)
        self._count(-1)
        assert place == number
        return number * number

    async def square_async(self, place: int, number: int) -> int:
        self._count(1)
        await asyncio.sleep(random.random() / 300)
        self._count(-1)
        assert place == number
        return number * number


@pytest.mark.parametrize("lanes", LANES)
def test_in_threads(lanes: int) -> None:
    watched = Watched()
    results = in_order(watched, watched.square, lanes)
    assert watched.taken == 0, "nobody has asked for any"
    for number, result in zip(range(100), results, strict=False):
        assert result == number * number
        assert watched.taken - (number + 1) <= 2 * lanes
    results.close()
    assert watched.most <= lanes
    assert watched.most == lanes, "but all lanes are used"
    assert watched.threads == {threading.get_ident()}, "an iterator may belong to its thread"
    assert watched.working == 0, "nothing goes on afterwards"
    taken = watched.taken
    time.sleep(0.02)
    assert watched.taken == taken


@pytest.mark.parametrize("lanes", LANES)
async def test_in_tasks(lanes: int) -> None:
    watched = Watched()
    taken = 0
    before = asyncio.all_tasks()
    async with aclosing(in_order_async(aiter(watched), watched.square_async, lanes)) as results:
        async for result in results:
            assert result == taken * taken
            taken += 1
            assert watched.taken - taken <= 2 * lanes
            if taken == 100:
                break
    assert watched.most == lanes
    ended = watched.taken
    await asyncio.sleep(0.02)
    assert watched.taken == ended
    assert asyncio.all_tasks() == before


def test_what_has_not_begun_never_does() -> None:
    lanes = 2
    all_taken, released = threading.Event(), threading.Event()
    begun = []

    def source() -> Iterator[int]:
        yield from range(2 * lanes)
        raise AssertionError("more than may be held")

    def work(place: int, number: int) -> int:
        begun.append(place)
        if place == 0:
            all_taken.wait(20)
        else:
            released.wait(20)
        return number

    class Counted:
        """Tells when the last one is being taken; the one before it waits for a lane by then."""

        def __iter__(self) -> Iterator[int]:
            for number in source():
                if number == 2 * lanes - 1:
                    threading.Timer(0.2, all_taken.set).start()
                yield number

    results = in_order(Counted(), work, lanes)
    assert next(results) == 0
    threading.Timer(0.2, released.set).start()
    results.close()
    assert sorted(begun) == [0, 1, 2], "the last one was cancelled"


@pytest.mark.parametrize("count", [0, 1, 5, 20])
async def test_it_ends_with_the_items(count: int) -> None:
    watched = Watched()
    expected = [number * number for number in range(count)]
    assert list(in_order(range(count), watched.square, 3)) == expected
    assert [each async for each in in_order_async(range(count), watched.square_async, 3)] == expected


async def test_a_source_that_is_slow_keeps_no_result_back() -> None:
    """Each comes before the next picture is there."""
    gate: asyncio.Queue[int] = asyncio.Queue()

    async def source() -> AsyncIterator[int]:
        while True:
            yield await gate.get()

    async with aclosing(in_order_async(source(), Watched().square_async, 4)) as results:
        for number in range(5):
            gate.put_nowait(number)
            async with asyncio.timeout(20):
                assert await anext(results) == number * number


class Broken(Exception):
    pass


def broken() -> Iterator[int]:
    yield from range(3)
    raise Broken


async def test_what_the_source_raises_is_raised_after_what_came_before() -> None:
    results = in_order(broken(), Watched().square, 1)
    assert list(itertools.islice(results, 3)) == [0, 1, 4]
    with pytest.raises(Broken):
        next(results)
    later = in_order_async(broken(), Watched().square_async, 1)
    assert [await anext(later) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(Broken):
        await anext(later)


@pytest.mark.parametrize("lanes", [0, -1])
def test_there_is_a_lane(lanes: int) -> None:
    with Client(transport=FakeService()) as client, pytest.raises(ValueError, match="1 or more"):
        client.score_many([], concurrency=lanes)


async def test_who_cancels_leaves_nothing_behind() -> None:
    async def never(place: int, number: int) -> int:
        await asyncio.sleep(3600)
        return number

    async def consume() -> None:
        async for _ in in_order_async(itertools.count(), never, 3):
            pass

    before = asyncio.all_tasks()
    task = asyncio.create_task(consume())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


def picture(number: int) -> bytes:
    return b"\x89PNG" + bytes([number])


async def test_an_error_is_its_pictures_alone() -> None:
    pictures = [picture(0), b"text", "missing.png", picture(3)]
    service = FakeService()
    with Client(transport=service) as client:
        found = list(client.score_many(pictures))
    async with AsyncClient(transport=service) as other:
        again = [each async for each in other.score_many(pictures)]
    for each in (found, again):
        assert [one.index for one in each] == [0, 1, 2, 3]
        assert [one.picture for one in each] == pictures
        assert [type(one.error).__name__ for one in each] == [
            "NoneType",
            "UnsupportedImage",
            "UnreadablePicture",
            "NoneType",
        ]
        assert each[0].unwrap().score != each[3].unwrap().score
        with pytest.raises(UnsupportedImage):
            each[1].unwrap()


def test_a_service_that_is_gone_is_an_error_of_each() -> None:
    service = FakeService()
    service.disconnect(times=2)
    with Client(transport=service, retry=NEVER) as client:
        found = list(client.score_many([picture(0), picture(1), picture(2)], concurrency=1))
    assert [type(each.error) for each in found] == [ConnectionFailed, ConnectionFailed, type(None)]
    assert isinstance(found[0].error, Clicv2Error)


def test_an_option_that_does_not_exist_is_a_mistake_of_the_caller() -> None:
    with Client(transport=FakeService()) as client, pytest.raises(TypeError, match="heatmaps"):
        list(client.score_many([picture(0)], heatmaps="grid"))  # type: ignore[call-arg]


def test_who_leaves_does_not_wait_for_a_service_that_is_gone() -> None:
    """Nothing is sent again for pictures whose results nobody takes: by Ctrl-C, say, or a break."""
    service = FakeService()
    service.disconnect(times=100_000)

    def interrupted() -> Iterator[bytes]:
        yield from map(picture, range(4))
        while len(service.requests) < 4:
            time.sleep(0.01)
        raise KeyboardInterrupt

    with Client(transport=service) as client:
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            next(client.score_many(interrupted(), concurrency=4, timeout_s=600))
        assert time.monotonic() - started < 60
        sent = len(service.requests)
        assert sent < 1000, "nor at once, again and again"
        time.sleep(2.5)
        assert len(service.requests) == sent
