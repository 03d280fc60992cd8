from pathlib import Path

import pytest
import tiny_model
from scripted import ScriptedBackend

from clicv2 import contract
from clicv2.contract import Manifest
from service.catalog import Catalog


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def manifest(repository: Path) -> Manifest:
    return contract.open_version(repository / "clicv2").manifest


@pytest.fixture
def catalog(repository: Path) -> Catalog:
    return Catalog(repository / "clicv2")


@pytest.fixture
def scripted(manifest: Manifest) -> ScriptedBackend:
    return ScriptedBackend(manifest)
