import asyncio
import time

import pytest

from clicv2.errors import Corrupt, ImageError
from service.errors import DeadlineExceeded, Overloaded
from service.singleflight import SingleFlight, Wanted

pytestmark = pytest.mark.anyio

SOON_S = 0.05
LONG_S = 60.0


def of_the_picture(error: Exception) -> bool:
    return isinstance(error, ImageError)


class Work:
    """Counts how often it runs, and ends when it is told to."""

    def __init__(self) -> None:
        self.started = 0
        self.running = 0
        self.cancelled = 0
        self.wanted: Wanted | None = None
        self.endings: list[asyncio.Future[str]] = []

    async def __call__(self, wanted: Wanted) -> str:
        self.started += 1
        self.running += 1
        assert self.running == 1
        self.wanted = wanted
        self.endings.append(asyncio.get_running_loop().create_future())
        try:
            return await self.endings[-1]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


@pytest.fixture
def flights() -> SingleFlight[str]:
    return SingleFlight(of_the_picture)


@pytest.fixture
def work() -> Work:
    return Work()


def ask(flights: SingleFlight[str], work: Work, within_s: float = LONG_S) -> asyncio.Task[tuple[str, bool]]:
    return asyncio.create_task(flights.share("picture", time.monotonic() + within_s, work))


async def steps() -> None:
    """Until nobody has anything to do."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_all_share_one(flights: SingleFlight[str], work: Work) -> None:
    asking = [ask(flights, work) for _ in range(5)]
    await steps()
    work.endings[0].set_result("seen")
    assert await asyncio.gather(*asking) == [("seen", False), *[("seen", True)] * 4]
    assert (work.started, len(flights)) == (1, 0)


async def test_one_after_the_other_share_nothing(flights: SingleFlight[str], work: Work) -> None:
    for n in range(2):
        asking = ask(flights, work)
        await steps()
        work.endings[n].set_result("seen")
        assert await asking == ("seen", False)
    assert (work.started, len(flights)) == (2, 0)


async def test_other_keys_share_nothing(flights: SingleFlight[str]) -> None:
    works = [Work(), Work()]
    asking = [asyncio.create_task(flights.share(n, time.monotonic() + LONG_S, work)) for n, work in enumerate(works)]
    await steps()
    assert len(flights) == 2
    for n, work in enumerate(works):
        work.endings[0].set_result(str(n))
    assert await asyncio.gather(*asking) == [("0", False), ("1", False)]


async def test_the_first_disconnects_and_the_others_are_answered(flights: SingleFlight[str], work: Work) -> None:
    first, second = ask(flights, work), ask(flights, work)
    await steps()
    first.cancel()
    await steps()
    assert work.running
    work.endings[0].set_result("seen")
    assert await second == ("seen", True)
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_the_first_has_less_time_than_the_others(flights: SingleFlight[str], work: Work) -> None:
    first, second = ask(flights, work, SOON_S), ask(flights, work)
    with pytest.raises(DeadlineExceeded):
        await first
    work.endings[0].set_result("seen")
    assert await second == ("seen", True)


async def test_the_others_have_less_time_than_the_first(flights: SingleFlight[str], work: Work) -> None:
    first, second = ask(flights, work), ask(flights, work, SOON_S)
    with pytest.raises(DeadlineExceeded):
        await second
    work.endings[0].set_result("seen")
    assert await first == ("seen", False)


async def test_it_is_cancelled_when_the_last_one_leaves(flights: SingleFlight[str], work: Work) -> None:
    first, second = ask(flights, work), ask(flights, work, SOON_S)
    await steps()
    first.cancel()
    with pytest.raises(DeadlineExceeded):
        await second
    await steps()
    assert (work.started, work.cancelled, len(flights)) == (1, 1, 0)


async def test_how_long_it_is_wanted(flights: SingleFlight[str], work: Work) -> None:
    now = time.monotonic()
    asking = [asyncio.create_task(flights.share("picture", now + s, work)) for s in (10, 30, 20)]
    await steps()
    assert work.wanted
    assert work.wanted.until == now + 30
    asking[1].cancel()
    await steps()
    assert work.wanted.until == now + 20
    for each in asking:
        each.cancel()
    await asyncio.wait(asking)
    await steps()
    assert len(flights) == 0


async def test_who_comes_after_it_was_abandoned_waits_until_it_has_ended(flights: SingleFlight[str]) -> None:
    ended, running = asyncio.Event(), 0

    async def slow_to_end(_: Wanted) -> str:
        nonlocal running
        running += 1
        assert running == 1
        try:
            if ended.is_set():
                return "seen"
            await asyncio.sleep(LONG_S)
        except asyncio.CancelledError:
            await ended.wait()
            raise
        finally:
            running -= 1
        return ""

    def ask(within_s: float = LONG_S) -> asyncio.Task[tuple[str, bool]]:
        return asyncio.create_task(flights.share("picture", time.monotonic() + within_s, slow_to_end))

    first = ask()
    await steps()
    first.cancel()
    await steps()
    second, third = ask(), ask(SOON_S)
    with pytest.raises(DeadlineExceeded):
        await third
    ended.set()
    assert await second == ("seen", False)
    await steps()
    assert len(flights) == 0


async def test_an_error_of_the_picture_is_everybodys(flights: SingleFlight[str], work: Work) -> None:
    asking = [ask(flights, work) for _ in range(3)]
    await steps()
    work.endings[0].set_exception(Corrupt("no picture"))
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(error) for error in errors] == [Corrupt] * 3
    assert work.started == 1


async def test_an_error_of_the_moment_is_the_firsts_and_the_others_try_once_more(
    flights: SingleFlight[str], work: Work
) -> None:
    asking = [ask(flights, work) for _ in range(4)]
    await steps()
    work.endings[0].set_exception(Overloaded("queue", 1))
    await steps()
    assert work.started == 2  # together
    work.endings[1].set_result("seen")
    first, *others = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(first, Overloaded)
    assert sorted(others) == [("seen", False), ("seen", True), ("seen", True)]


async def test_they_try_no_more_than_once(flights: SingleFlight[str], work: Work) -> None:
    asking = [ask(flights, work) for _ in range(4)]
    for n in range(2):
        await steps()
        work.endings[n].set_exception(Overloaded("queue", 1))
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(error) for error in errors] == [Overloaded] * 4
    assert (work.started, len(flights)) == (2, 0)


async def test_an_expired_flight_is_its_firsts_and_the_others_go_on(flights: SingleFlight[str], work: Work) -> None:
    """Work may end by itself at the deadline that it was begun with."""
    first, second = ask(flights, work), ask(flights, work)
    await steps()
    work.endings[0].set_exception(DeadlineExceeded("too late"))
    with pytest.raises(DeadlineExceeded):
        await first
    await steps()
    work.endings[1].set_result("seen")
    assert await second == ("seen", False)


async def test_work_that_ends_with_nobody_asking_is_no_unheard_error(flights: SingleFlight[str]) -> None:
    async def fails_when_cancelled(_: Wanted) -> str:
        try:
            await asyncio.sleep(LONG_S)
        finally:
            raise Overloaded("queue", 1)

    first = asyncio.create_task(flights.share("picture", time.monotonic() + LONG_S, fails_when_cancelled))
    await steps()
    first.cancel()
    await asyncio.wait({first})
    await steps()
    assert len(flights) == 0
