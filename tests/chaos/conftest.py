import os

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def scale() -> int:
    """How many times the faults of a quick run are made: `make chaos` sets CHAOS_SCALE."""
    return int(os.environ.get("CHAOS_SCALE", "1"))
