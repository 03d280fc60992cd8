"""A ledger in Redis, which all gateways share."""

from service.queue.link import Link


class RedisLedger:
    """See `service.ledger.protocol.Ledger`.

    Args:
        url: see `service.queue.connections.Pool`.
        prefix: of each key, with all that separates it from the name.
        ttl_s: how long a name is remembered; an entry is about 150 bytes.
        timeout_s: after which Redis is out of reach.
    """

    def __init__(self, url: str, *, prefix: str, ttl_s: float, timeout_s: float) -> None:
        self._link = Link(url, timeout_s, name="what remembers Idempotency-Keys")
        self._prefix = prefix
        self._ttl_ms = max(1, round(ttl_s * 1000))

    async def first(self, name: str, content: str) -> str:
        return (await self._link.first(self._prefix + name, content.encode(), self._ttl_ms)).decode()

    async def close(self) -> None:
        await self._link.close()
