from dataclasses import replace
from pathlib import Path

import pytest
import tiny_model

from clicv2 import contract
from clicv2.errors import ContractError
from clicv2.spec import PreprocessSpec
from service.catalog import Catalog
from service.errors import NotReady


def test_a_version_that_turns_up_is_read_then(tmp_path: Path) -> None:
    tiny_model.write(tmp_path)
    catalog = Catalog(tmp_path / "clicv2")
    assert catalog.answered(1).version == 1
    tiny_model.write(tmp_path, version=2)
    assert catalog.answered(2).version == catalog.current.version == 2
    assert catalog.answered(1).version == catalog.current.version == 1  # a pin goes back


def test_the_highest_is_expected_unless_another_is_asked_for(tmp_path: Path) -> None:
    for version in (1, 2):
        tiny_model.write(tmp_path, version=version)
    assert Catalog(tmp_path / "clicv2").current.version == 2
    assert Catalog(tmp_path / "clicv2", 1).current.version == 1
    with pytest.raises(ContractError, match="not 3"):
        Catalog(tmp_path / "clicv2", 3)


def test_only_the_manifest_is_needed(tmp_path: Path) -> None:
    """A gateway in front of workers need not hold the model."""
    tiny_model.write(tmp_path)
    (tmp_path / "clicv2/1" / contract.MODEL_FILE).unlink()
    assert Catalog(tmp_path / "clicv2").current.version == 1


def test_answers_of_a_version_without_a_manifest_are_refused(tmp_path: Path) -> None:
    catalog = Catalog(tiny_model.write(tmp_path) / "clicv2")
    with pytest.raises(NotReady, match="version 2 answers, of which nothing is known"):
        catalog.answered(2)
    assert catalog.current.version == 1


def test_answers_for_pictures_prepared_otherwise_are_refused(tmp_path: Path) -> None:
    """Promise 9."""
    catalog = Catalog(tiny_model.write(tmp_path) / "clicv2")
    tiny_model.write(tmp_path, version=2)
    file = tmp_path / "clicv2/2" / contract.MANIFEST_FILE
    other = PreprocessSpec(height=32, width=32)
    replace(contract.Manifest.load(file), preprocess=other, fingerprint=other.fingerprint()).save(file)
    with pytest.raises(NotReady, match=other.fingerprint()):
        catalog.answered(2)
