"""A Redis of their own for the tests of the queue in it."""

from collections.abc import AsyncIterator, Iterator

import pytest
from queues import CLIC, LEASE_S, Ends, redis_ends
from redis_server import RedisServer, redis_server


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(shared: RedisServer) -> RedisServer:
    """An empty Redis."""
    shared.client.flushall()
    return shared


@pytest.fixture
async def ends(redis: RedisServer) -> AsyncIterator[Ends]:
    async with redis_ends(redis, prefix=CLIC.prefix, max_attempts=2) as ends:
        yield ends


@pytest.fixture
async def brief(redis: RedisServer) -> AsyncIterator[Ends]:
    """Ends whose leases run out soon."""
    async with redis_ends(redis, prefix=CLIC.prefix, max_attempts=2, lease_s=LEASE_S) as ends:
        yield ends
