import os
from collections.abc import Iterator

import pytest
from redis_server import RedisServer, redis_server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def scale() -> int:
    """How many times the faults of a quick run are made: `make chaos` sets CHAOS_SCALE."""
    return int(os.environ.get("CHAOS_SCALE", "1"))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server
