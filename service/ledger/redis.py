"""A ledger in Redis, which all gateways share."""

import asyncio
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.errors import Unavailable


class RedisLedger:
    """See `service.ledger.protocol.Ledger`.

    Args:
        url: see `service.queue.link.Link`.
        prefix: of each key, with all that separates it from the name.
        ttl_s: how long a name is remembered; an entry is about 150 bytes.
        timeout_s: after which Redis is out of reach.
    """

    def __init__(self, url: str, *, prefix: str, ttl_s: float, timeout_s: float) -> None:
        self._redis = Redis.from_url(url, protocol=2, max_connections=100, socket_connect_timeout=timeout_s)
        self._prefix = prefix
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._timeout_s = timeout_s

    async def first(self, name: str, content: str) -> str:
        try:
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=True) as steps:
                # Together, so that of two who come at once one is first. Redis 7 has one command for it, 6.2 not yet.
                steps.set(self._prefix + name, content, px=self._ttl_ms, nx=True)
                steps.get(self._prefix + name)
                _, found = await steps.execute()
        except (RedisError, TimeoutError, OSError) as error:
            raise Unavailable("what remembers Idempotency-Keys is out of reach; try again later") from error
        return cast("bytes", found).decode()

    async def close(self) -> None:
        await self._redis.aclose()
