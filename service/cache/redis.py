"""Kept results in Redis, which all gateways share.

    {clicv2}:cache:<slot>   STRING  the key, 32 bytes, then its value; expires

A counted number of slots, and each key has one place among them, which it takes from whoever was there. So the
cache can never take more than its share of a Redis that must not evict anything, since it is the queue's too
(noeviction): there, a cache that is bounded by time alone would in the end leave jobs no room. It needs no list of
what was used when, and no script. The price: of as many pictures as there are slots, each asked for in turn, a
third is found again or a little more; of half as many, 60 %; of a tenth, 90 %.

The hash tag is the queue's, for the connection leads to the one node of a cluster that has it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine

from redis.exceptions import RedisError

from service.errors import Unavailable
from service.queue.link import Link

log = logging.getLogger(__name__)

_KEY_BYTES = 32
# After a failure, how long until Redis is asked again, and again, by nobody's request.
PAUSE_S = 1.0
# What a slot costs Redis beyond its value: the key twice, its name, and entries in two tables. Measured: 410.
OVERHEAD_BYTES = 450


class RedisStore:
    """See `service.cache.protocol.Store`. A Redis that is away or full is a cache that is off, until it is back.

    Args:
        url: see `service.queue.connections.Pool`.
        prefix: the queue's.
        slots: how many entries there are at most, all gateways together; the same at each of them.
        ttl_s: how long an entry is kept, however often it is asked for.
        timeout_s: after which Redis is out of reach.
        on_failure: called for each time that Redis did not do what it was asked.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "clicv2",
        slots: int,
        ttl_s: float,
        timeout_s: float = 0.2,
        pause_s: float = PAUSE_S,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._link = Link(url, timeout_s, name="the cache")
        self._prefix = f"{{{prefix}}}:cache:"
        self._slots = slots
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._pause_s = pause_s
        self._on_failure = on_failure
        self._resting: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()

    @property
    def resting(self) -> bool:
        """Whether Redis is taken to be away: nobody is kept waiting for it."""
        return self._resting is not None

    async def get(self, key: bytes) -> bytes | None:
        if self.resting:
            return None
        try:
            (found,) = await self._link.get([self._slot(key)])
        except (Unavailable, RedisError) as error:
            self._rest(error)
            return None
        return found[_KEY_BYTES:] if found and found.startswith(key) else None

    def put(self, key: bytes, value: bytes) -> None:
        if not self.resting:
            self._run_errand(self._set(key, value))

    async def close(self) -> None:
        if self._resting:
            self._resting.cancel()
        await asyncio.gather(*self._errands, return_exceptions=True)
        await self._link.close()

    def _slot(self, key: bytes) -> bytes:
        number = int.from_bytes(key[:8]) % self._slots
        return f"{self._prefix}{number:x}".encode()

    async def _set(self, key: bytes, value: bytes) -> None:
        try:
            await self._link.set(self._slot(key), key + value, self._ttl_ms)
        except (Unavailable, RedisError) as error:
            self._rest(error)

    def _rest(self, error: Exception) -> None:
        """Off, until Redis takes an entry again."""
        self._on_failure()
        if not self.resting:
            log.warning("results are not kept until Redis answers again: %s", error.__cause__ or error)
            self._resting = self._run_errand(self._try_again())

    async def _try_again(self) -> None:
        """A full Redis still reads, so a trial is to write."""
        try:
            while True:
                await asyncio.sleep(self._pause_s)
                try:
                    await self._link.set(f"{self._prefix}trial".encode(), b"", 1000)
                except (Unavailable, RedisError):
                    self._on_failure()
                else:
                    log.info("results are kept again")
                    return
        finally:
            self._resting = None

    def _run_errand(self, errand: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return task
