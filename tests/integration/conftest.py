from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_model
from serving import Server, serving


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    """Default settings; shared, so tests compare counters before and after."""
    with serving(repository) as running:
        yield running
