"""Connections to Redis, as everything here that speaks to it keeps them."""

from collections.abc import Iterable

from redis.asyncio import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


class Reconnecting(AbstractConnection):
    """Connects anew when it was reset while it lay in the pool, where redis-py notices only a goodbye.

    What redis-py does instead is to write: uvloop then raises RuntimeError, and asyncio drops the bytes.
    """

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        if self._writer is not None and self._writer.is_closing():
            await self.disconnect(nowait=True)
        await super().send_packed_command(command, check_health)


class _Tcp(Reconnecting, Connection):
    """redis://"""


class _Tls(Reconnecting, SSLConnection):
    """rediss://"""


class _Unix(Reconnecting, UnixDomainSocketConnection):
    """unix://"""


_KINDS: dict[type[AbstractConnection], type[AbstractConnection]] = {
    Connection: _Tcp,
    SSLConnection: _Tls,
    UnixDomainSocketConnection: _Unix,
}


class Pool(ConnectionPool):
    """Connections of one process to one Redis. A class, as throttled-py asks for the name of one."""

    @classmethod
    def from_url(cls, url: str, **options: object) -> "Pool":
        """As redis-py reads it: redis://[[user]:password@]host[:port][/database], rediss://, unix://.

        Args:
            options: further ones of redis-py, and `socket_connect_timeout` in any case: all that follows the
                connection is bounded as a whole by who waits for it.

        Raises ValueError.
        """
        ours = {
            "protocol": 2,
            "max_connections": 1000,
            "socket_timeout": None,
            "retry": Retry(NoBackoff(), 0),  # here nobody knows whether repeating is worth the wait
            "driver_info": None,
        }
        pool = super().from_url(url, **ours, **options)
        pool.connection_class = _KINDS[pool.connection_class]
        return pool
