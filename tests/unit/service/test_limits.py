"""Counts in memory and on a real Redis. Windows are long, so that a busy machine changes no outcome."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import product

import pytest
from redis_server import RedisServer, redis_server

from service.allowance import Allowance
from service.errors import QuotaExceeded, RateLimited
from service.limits import Limiter, Meter, Policy, RedisCounts

pytestmark = pytest.mark.anyio

NewLimiter = Callable[[], Limiter]
POLICIES: tuple[Policy, ...] = ("rate", "quota")
TEN_A_DAY = Allowance(10, 86_400)
LONG_S = 30.0  # Redis on a busy machine is slow, not away


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def new_limiter(request: pytest.FixtureRequest) -> AsyncIterator[NewLimiter]:
    """Makes limiters that share a Redis, or have nothing in common."""
    async with AsyncExitStack() as stack:

        def make() -> Limiter:
            shared = None
            if request.param == "redis":
                server: RedisServer = request.getfixturevalue("redis")
                shared = RedisCounts(server.url, LONG_S)
            limiter = Limiter(shared, prefix=request.node.name.partition("[")[0], timeout_s=LONG_S)
            stack.push_async_callback(limiter.close)
            return limiter

        yield make
        if request.param == "redis":
            request.getfixturevalue("redis").client.flushall()


@pytest.mark.parametrize("policy", POLICIES)
async def test_so_many_and_no_more(new_limiter: NewLimiter, policy: Policy) -> None:
    limiter = new_limiter()
    standings = [await limiter.take(policy, "a", TEN_A_DAY) for _ in range(13)]
    assert [each.remaining for each in standings] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0]
    assert [each.exceeded for each in standings] == [False] * 10 + [True] * 3
    assert all(1 <= each.until_s <= 86_400 for each in standings)


@pytest.mark.parametrize("policy", POLICIES)
async def test_many_at_once_get_exactly_so_many(new_limiter: NewLimiter, policy: Policy) -> None:
    limiter = new_limiter()
    standings = await asyncio.gather(*(limiter.take(policy, "a", TEN_A_DAY) for _ in range(50)))
    assert sum(not each.exceeded for each in standings) == 10


@pytest.mark.parametrize("policy", POLICIES)
async def test_callers_with_other_limits_do_not_touch_each_other(new_limiter: NewLimiter, policy: Policy) -> None:
    limiter = new_limiter()
    few, many = Allowance(3, 86_400), Allowance(30, 86_400)
    outcomes = {"few": 0, "many": 0}
    for _ in range(40):
        for who, allowance in (("few", few), ("many", many)):
            outcomes[who] += not (await limiter.take(policy, who, allowance)).exceeded
    assert outcomes == {"few": 3, "many": 30}


async def test_rate_and_quota_do_not_touch_each_other(new_limiter: NewLimiter) -> None:
    limiter = new_limiter()
    for _ in range(11):
        await limiter.take("rate", "a", TEN_A_DAY)
    assert (await limiter.take("quota", "a", TEN_A_DAY)).remaining == 9


async def test_gateways_that_share_a_redis_count_together(redis: RedisServer) -> None:
    first, second = (Limiter(RedisCounts(redis.url, LONG_S), prefix="together", timeout_s=LONG_S) for _ in range(2))
    try:
        for policy in POLICIES:
            pairs = product(range(8), (first, second))
            standings = await asyncio.gather(*(limiter.take(policy, "a", TEN_A_DAY) for _, limiter in pairs))
            assert sum(not each.exceeded for each in standings) == 10
            other = await asyncio.gather(*(limiter.take(policy, "b", Allowance(5, 60)) for limiter in (first, second)))
            assert sorted(each.remaining for each in other) == [3, 4]
    finally:
        await first.close()
        await second.close()


async def test_services_that_share_a_redis_count_each_for_itself(redis: RedisServer) -> None:
    limiters = [Limiter(RedisCounts(redis.url, LONG_S), prefix=name, timeout_s=LONG_S) for name in ("one", "two")]
    for limiter in limiters:
        assert (await limiter.take("rate", "a", TEN_A_DAY)).remaining == 9
        await limiter.close()


async def test_what_lies_in_redis_goes_away_by_itself(redis: RedisServer) -> None:
    redis.client.flushall()
    limiter = Limiter(RedisCounts(redis.url, LONG_S), timeout_s=LONG_S)
    for policy in POLICIES:
        await limiter.take(policy, "a", Allowance(10, 60))
    await limiter.close()
    names = redis.client.keys("*")
    assert isinstance(names, list)
    assert len(names) == 2
    for name in names:
        assert name.startswith(b"clicv2:limits:")
        assert 0 < int(str(redis.client.ttl(name))) <= 60


async def test_a_rate_comes_back_one_by_one(new_limiter: NewLimiter) -> None:
    """So the wait is for the next one, not for all: 600 in 60 s are one each 0.1 s."""
    limiter = new_limiter()
    rate = Allowance(600, 60)
    first = await limiter.take("rate", "a", rate)
    assert (first.remaining, first.until_s) == (599, 1)
    slow = Allowance(2, 100)
    assert [(await limiter.take("rate", "b", slow)).until_s for _ in range(3)] == [50, 50, 50]


async def test_a_rate_is_refilled(new_limiter: NewLimiter) -> None:
    limiter = new_limiter()
    rate = Allowance(2, 1)
    while not (await limiter.take("rate", "a", rate)).exceeded:
        pass
    await asyncio.sleep(0.6)
    assert not (await limiter.take("rate", "a", rate)).exceeded


async def test_a_batch_gets_all_or_takes_nothing(new_limiter: NewLimiter) -> None:
    limiter = new_limiter()
    assert (await limiter.take("quota", "a", TEN_A_DAY, 7)).remaining == 3
    refused = await limiter.take("quota", "a", TEN_A_DAY, 4)
    assert (refused.exceeded, refused.remaining) == (True, 3)
    assert not (await limiter.take("quota", "a", TEN_A_DAY, 3)).exceeded


@pytest.mark.parametrize("trouble", ["kill", "pause"])
async def test_a_redis_that_is_away_closes_nothing_and_opens_nothing(trouble: str) -> None:
    """Killed, it refuses connections; paused, it lets us wait."""
    lost: list[None] = []
    now = 0.0
    with redis_server() as server:
        counts = RedisCounts(server.url, 1)
        limiter = Limiter(counts, timeout_s=1, on_lost=lambda: lost.append(None), clock=lambda: now)
        for _ in range(4):
            await limiter.take("rate", "a", TEN_A_DAY)
        getattr(server, trouble)()
        standings = [await limiter.take("rate", "a", TEN_A_DAY) for _ in range(12)]
        assert [each.remaining for each in standings[:2]] == [9, 8]  # counted here
        assert sum(not each.exceeded for each in standings) == 10
        assert len(lost) == 12
        if trouble == "kill":
            server.start()
        server.resume()
        now += 10
        assert (await limiter.take("rate", "b", TEN_A_DAY)).remaining == 9
        assert len(lost) == 12
        await limiter.close()


async def test_while_redis_is_away_only_some_wait_for_it() -> None:
    asked = 0
    limiter = Limiter(RedisCounts("redis://127.0.0.1:1/0", 1), timeout_s=LONG_S, clock=lambda: 0.0)
    intact = limiter._take

    async def count(*arguments: object, shared: bool) -> object:
        nonlocal asked
        asked += shared
        return await intact(*arguments, shared=shared)  # type: ignore[arg-type]

    limiter._take = count  # type: ignore[assignment,method-assign]
    for _ in range(20):
        await limiter.take("rate", "a", TEN_A_DAY)
    assert asked == 1
    await limiter.close()


async def test_memory_is_bounded_and_forgets_who_was_longest_away() -> None:
    limiter = Limiter(callers=100)
    for number in range(1000):
        await limiter.take("rate", f"caller {number}", TEN_A_DAY)
        assert (await limiter.take("rate", "regular", Allowance(10_000, 86_400))).remaining == 9_999 - number
    assert len(limiter._own._backend.get_client()) == 100
    assert len(limiter._own._backend.expire_info) == 100


async def test_a_meter_raises_what_the_caller_should_know() -> None:
    exceeded: list[Policy] = []
    limiter = Limiter(on_exceeded=exceeded.append)
    meter = Meter(limiter, "a", Allowance(2, 100), Allowance(5, 86_400))
    await meter.request()
    await meter.pictures(0)
    assert list(meter.standings) == ["rate"]
    await meter.pictures(4)
    with pytest.raises(QuotaExceeded, match="5 pictures in 86400 s are allowed, of which 1 are left") as quota:
        await meter.pictures(2)
    assert quota.value.facts() == {"violated-policies": ["quota"], "maximum": 5, "window_s": 86_400}
    await meter.request()
    with pytest.raises(RateLimited, match="2 requests in 100 s") as rate:
        await meter.request()
    assert not isinstance(rate.value, QuotaExceeded)
    assert rate.value.retry_after_s == meter.standings["rate"].until_s == 50
    assert exceeded == ["quota", "rate"]


async def test_a_meter_without_limits_counts_nothing() -> None:
    meter = Meter(Limiter(), "a", None, None)
    await meter.request()
    await meter.pictures(10**9)
    assert not meter.standings


@pytest.mark.parametrize(
    ("text", "allowance"),
    [
        ("10/second", Allowance(10, 1)),
        ("600/minute", Allowance(600, 60)),
        (" 1 / hour", Allowance(1, 3600)),
        ("10000/day", Allowance(10_000, 86_400)),
    ],
)
def test_allowances(text: str, allowance: Allowance) -> None:
    assert Allowance.parse(text) == allowance
    assert Allowance.parse(str(allowance)) == allowance


@pytest.mark.parametrize(
    "text", ["", "10", "0/second", "-1/day", "1.5/second", "10/month", "١٠/day", "10/seconds", "1e3/day"]
)
def test_what_is_no_allowance(text: str) -> None:
    with pytest.raises(ValueError, match="is no allowance"):
        Allowance.parse(text)
    assert math.isfinite(Allowance(3, 7).window_s)
    assert str(Allowance(3, 7)) == "3/7 s"
