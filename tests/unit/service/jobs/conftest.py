"""Each kind of store, for the tests of jobs."""

from collections.abc import Iterator
from secrets import token_hex

import pytest
from jobs import Stores
from redis_server import RedisServer, redis_server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def stores(request: pytest.FixtureRequest) -> Stores:
    server = request.getfixturevalue("redis") if request.param == "redis" else None
    return Stores(server, f"test-{token_hex(4)}")
