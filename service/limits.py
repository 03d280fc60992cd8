"""How much a caller may ask for: a rate of requests, and a quota of pictures.

    rate    smooth (GCRA): `10/second` is ten at once, then one each 0.1 s. So nobody floods the others.
    quota   a window of the calendar, in UTC: `10000/day` begins anew at midnight. So nobody costs more than agreed.

Both are throttled-py's: one round trip to Redis counts and tells all that the RateLimit fields need, in 0.1 ms of CPU
(the library `limits` takes two, and 0.2 ms); in memory it keeps a bounded number of callers. A rate goes by Redis'
clock, the midnight of a quota by each gateway's.

A Redis that is away closes nothing and opens nothing: until it is back each gateway counts for itself, so that of n
gateways together a caller gets at most n times his allowance. Who may enter at all is no matter of Redis.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, cast

from throttled.asyncio import MemoryStore, RateLimiterType, RedisStore, Throttled, per_duration
from throttled.exceptions import StoreUnavailableError

from service.allowance import Allowance
from service.errors import QuotaExceeded, RateLimited

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

Policy = Literal["rate", "quota"]

_ALGORITHMS: dict[Policy, RateLimiterType] = {"rate": RateLimiterType.GCRA, "quota": RateLimiterType.FIXED_WINDOW}
# Callers whose counts are kept in memory, the latest; 300 bytes each, so 3 MB.
CALLERS = 10_000
# After a failure, how long not to ask Redis: else each request would wait for the timeout.
_REST_S = 1.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a caller stands with an allowance, as the RateLimit field tells it.

    Attributes:
        remaining: what is left now.
        until_s: in so many seconds no more than `remaining` can be had.
        exceeded: there was not enough left.
    """

    policy: Policy
    allowance: Allowance
    remaining: int
    until_s: int
    exceeded: bool


class RedisCounts(RedisStore):
    """Counts that all gateways share.

    Args:
        url: see `service.queue.connections.Pool`.
        timeout_s: of a connection; the calls are bounded by the Limiter.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        from service.queue.connections import Pool  # redis is installed only where it is used

        super().__init__(
            url,
            {
                "CONNECTION_POOL_CLASS": f"{Pool.__module__}.{Pool.__name__}",
                "CONNECTION_POOL_KWARGS": {"socket_connect_timeout": timeout_s},
            },
        )

    async def aclose(self) -> None:
        await cast("Redis", self._backend.get_client()).aclose(close_connection_pool=True)


class Limiter:
    """Counts what callers take.

    Args:
        shared: None: the counts are this process' own.
        prefix: first part of every key in Redis.
        timeout_s: after which Redis is out of reach.
        on_lost: called for each count that was made here because Redis was out of reach.
        on_exceeded: called for each refusal.
        callers: whose counts are kept in memory.
    """

    def __init__(
        self,
        shared: RedisCounts | None = None,
        *,
        prefix: str = "clicv2",
        timeout_s: float = 0.2,
        on_lost: Callable[[], None] = lambda: None,
        on_exceeded: Callable[[Policy], None] = lambda _: None,
        callers: int = CALLERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = shared
        self._own = MemoryStore(options={"MAX_SIZE": callers})
        self._prefix = f"{prefix}:limits"
        self._timeout_s = timeout_s
        self._on_lost = on_lost
        self._on_exceeded = on_exceeded
        self._clock = clock
        self._ask_from = -math.inf
        # As many as there are different allowances in the file of keys.
        self._counters: dict[tuple[Policy, Allowance, bool], Throttled] = {}

    async def take(self, policy: Policy, who: str, allowance: Allowance, cost: int = 1) -> Standing:
        """Take from an allowance, or nothing of it if there is not enough left."""
        standing = await self._wherever(policy, who, allowance, cost)
        if standing.exceeded:
            self._on_exceeded(policy)
        return standing

    async def close(self) -> None:
        if self._shared:
            await self._shared.aclose()

    async def _wherever(self, policy: Policy, who: str, allowance: Allowance, cost: int) -> Standing:
        if self._shared and self._clock() >= self._ask_from:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._take(policy, who, allowance, cost, shared=True)
            except (StoreUnavailableError, TimeoutError, OSError) as error:
                self._ask_from = self._clock() + _REST_S
                log.warning("Redis is out of reach, so this process counts for itself: %s", error.__cause__ or error)
        if self._shared:
            self._on_lost()
        return await self._take(policy, who, allowance, cost, shared=False)

    async def _take(self, policy: Policy, who: str, allowance: Allowance, cost: int, *, shared: bool) -> Standing:
        counter = self._counter(policy, allowance, shared=shared)
        if cost > 1:  # the fixed window counts what it refuses, too, and a batch must not take what it does not get
            state = await counter.peek(who)
            if state.remaining < cost:
                return Standing(policy, allowance, state.remaining, math.ceil(state.reset_after), exceeded=True)
        result = await counter.limit(who, cost)
        state = result.state
        until_s = state.retry_after if result.limited else state.reset_after
        if policy == "rate" and not result.limited:
            # Until the next one comes back; `reset_after` is until all are back, when more than `remaining` can be had.
            until_s -= (allowance.amount - state.remaining - 1) * allowance.window_s / allowance.amount
        return Standing(policy, allowance, state.remaining, max(1, math.ceil(until_s)), exceeded=result.limited)

    def _counter(self, policy: Policy, allowance: Allowance, *, shared: bool) -> Throttled:
        counter = self._counters.get((policy, allowance, shared))
        if counter is None:
            counter = self._counters[policy, allowance, shared] = Throttled(
                using=_ALGORITHMS[policy].value,
                quota=per_duration(timedelta(seconds=allowance.window_s), allowance.amount),
                store=self._shared if shared else self._own,
                key_prefix=self._prefix,
            )
        return counter


class Meter:
    """What one request takes from its caller's allowances.

    Attributes:
        standings: with each allowance of which it took something.
    """

    def __init__(self, limiter: Limiter, who: str, rate: Allowance | None, quota: Allowance | None) -> None:
        self._limiter = limiter
        self._who = who
        self.allowances: dict[Policy, Allowance] = {}
        if rate:
            self.allowances["rate"] = rate
        if quota:
            self.allowances["quota"] = quota
        self.standings: dict[Policy, Standing] = {}

    async def request(self) -> None:
        """Take one request. Raises RateLimited."""
        await self._take("rate", 1)

    async def pictures(self, count: int) -> None:
        """Take pictures, all of them or none. Raises QuotaExceeded."""
        if count > 0:
            await self._take("quota", count)

    async def _take(self, policy: Policy, cost: int) -> None:
        allowance = self.allowances.get(policy)
        if allowance is None:
            return
        standing = self.standings[policy] = await self._limiter.take(policy, self._who, allowance, cost)
        if standing.exceeded:
            refusal = RateLimited if policy == "rate" else QuotaExceeded
            raise refusal(allowance.amount, allowance.window_s, standing.remaining, standing.until_s)
