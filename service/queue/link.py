"""The connection to Redis: scripts and blocking reads, bounded in time.

Whatever keeps Redis from answering is Unavailable.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias, cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as TimedOut

from service.errors import Unavailable
from service.queue import scripts
from service.queue.connections import Pool

log = logging.getLogger(__name__)

Reply: TypeAlias = "int | bytes | list[Reply] | None"
Fields: TypeAlias = Mapping[bytes, bytes]

# More at once would only wait for each other in Redis, which does one thing at a time.
_CALLS_AT_ONCE = 16

# A timer that fires later than this was not looked at in time.
_LATE_S = 0.02

# What Redis says when it is there but cannot serve now. All else that it says is a defect of ours.
_STATES = (
    "OOM", "LOADING", "READONLY", "BUSY", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS",
    "UNBLOCKED",  # to a blocking read, when a primary becomes a replica
    "NOAUTH", "WRONGPASS", "NOPERM",
)  # fmt: skip
# Redis 6.2 puts what a command in a script said into the middle of its message, after a dash. Who has not said his
# password is told so only if what he asks is short.
_STATE = re.compile(rf"(?:^|-)(?:{'|'.join(_STATES)})\b|unauthenticated")

# Answers for so long after a failure that it is over: a line that is bad now and then is not worth two lines each time.
_CALM_S = 1.0


class Link:
    """One process's way to one Redis.

    Args:
        url: see `service.queue.connections.Pool`.
        timeout_s: the longest that a call takes, from the connection to the last byte of the reply.
        keys: KEYS of every script.
        name: of what lies there, for who is told that it is out of reach.
    """

    def __init__(self, url: str, timeout_s: float, *, keys: tuple[str, ...] = (), name: str = "the queue") -> None:
        self._redis = Redis.from_pool(Pool.from_url(url, socket_connect_timeout=timeout_s))
        self._scripts = {name: self._redis.register_script(scripts.source(name)) for name in scripts.NAMES}
        self._keys = keys
        self._timeout_s = timeout_s
        self._name = name
        self._turns = asyncio.Semaphore(_CALLS_AT_ONCE)
        self._failed_at = 0.0  # the last time
        self._told: set[str] = set()  # why it is out of reach, until that is over

    async def run(self, script: str, *args: bytes | str | int) -> Reply:
        """Run a script, and load it first into a Redis that does not know it. Raises Unavailable."""
        async with self._answering(self._timeout_s), self._turns:
            return cast("Reply", await self._scripts[script](self._keys, args))

    async def set_and_run(self, key: str, value: bytes, expire_ms: int, script: str, *args: bytes | str | int) -> Reply:
        """Set a key, then run a script, in one round trip. Raises Unavailable."""
        async with self._answering(self._timeout_s), self._turns:
            for _ in range(2):
                steps = self._redis.pipeline(transaction=False)
                steps.set(key, value, px=expire_ms)
                steps.evalsha(self._scripts[script].sha, len(self._keys), *self._keys, *args)
                _, reply = await steps.execute(raise_on_error=False)
                if not isinstance(reply, NoScriptError):
                    break
                await self._redis.script_load(self._scripts[script].script)
            if isinstance(reply, Exception):
                raise reply
            return cast("Reply", reply)

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys. Raises Unavailable."""
        async with self._answering(self._timeout_s), self._turns:
            return cast("list[bytes | None]", await self._redis.mget(keys))

    async def set(self, key: str | bytes, value: bytes, expire_ms: int) -> None:
        """Raises Unavailable."""
        async with self._answering(self._timeout_s), self._turns:
            await self._redis.set(key, value, px=expire_ms)

    async def first(self, key: str, value: bytes, expire_ms: int) -> bytes:
        """Set a key unless it has a value; the one that it has then. Raises Unavailable."""
        async with self._answering(self._timeout_s), self._turns:
            # In one step, so that of two who come at once one is first, and a value that is there is not gone when it
            # is read. Redis 7 has one command for it, 6.2 not yet.
            steps = self._redis.pipeline(transaction=True)
            steps.set(key, value, px=expire_ms, nx=True)
            steps.get(key)
            _, found = await steps.execute()
            return cast("bytes", found)

    async def read(self, stream: str, after: bytes, at_most: int, wait_s: float) -> list[tuple[bytes, Fields]]:
        """Wait for entries that come after one, on a connection of its own. Raises Unavailable.

        An idle Redis looks only ten times a second whose wait is over, so do not rely on it to end a short one.
        """
        async with self._answering(wait_s + self._timeout_s):
            reply = await self._redis.xread({stream: after}, at_most, block=max(1, round(wait_s * 1000)))
        streams = cast("list[tuple[bytes, list[tuple[bytes, Fields]]]]", reply)
        return streams[0][1] if streams else []

    async def delete(self, stream: str, entries: list[bytes]) -> None:
        """Raises Unavailable."""
        async with self._answering(self._timeout_s), self._turns:
            await self._redis.xdel(stream, *entries)

    async def drop(self, key: str) -> None:
        """Raises Unavailable."""
        async with self._answering(self._timeout_s), self._turns:
            await self._redis.unlink(key)

    async def close(self) -> None:
        await self._redis.aclose()

    @asynccontextmanager
    async def _answering(self, within_s: float) -> AsyncIterator[None]:
        try:
            async with _patient_timeout(within_s):
                yield
            self._answered()
        except (NotConnected, TimedOut, TimeoutError, OSError) as error:
            raise self._unavailable(error) from error
        except ResponseError as error:
            if not (_STATE.search(str(error)) or error.status_code in _STATES):
                raise
            if isinstance(error, ReadOnlyError):  # no longer the primary: let the name be looked up again
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            raise self._unavailable(error) from error
        except RedisError as error:  # a reply that is no Redis's
            raise self._unavailable(error) from error

    def _unavailable(self, why: Exception) -> Unavailable:
        """Callers are told that it is so, and the log why."""
        reason = str(why) or type(why).__name__
        if reason not in self._told:
            self._told.add(reason)
            log.warning("%s is out of reach: %s", self._name, reason)
        self._failed_at = time.monotonic()
        return Unavailable(f"{self._name} is out of reach; try again later")

    def _answered(self) -> None:
        if self._told and time.monotonic() - self._failed_at > _CALM_S:
            self._told.clear()
            log.info("%s is within reach again", self._name)


@asynccontextmanager
async def _patient_timeout(within_s: float) -> AsyncIterator[None]:
    """`asyncio.timeout`, but when this process was late itself, whoever it waits for gets that time on top.

    On a machine whose cores are all taken, an answer may have lain here long before anybody could look.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    async with asyncio.timeout(None) as timeout:

        def expire() -> None:
            late_s = loop.time() - deadline
            timeout.reschedule(loop.time() + (late_s if late_s > _LATE_S else 0.0))

        timer = loop.call_at(deadline, expire)
        try:
            yield
        finally:
            timer.cancel()
