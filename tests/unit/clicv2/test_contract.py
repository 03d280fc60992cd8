"""The manifest keeps what it is given, and a model that does not match it is refused."""

import dataclasses
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from clicv2 import contract
from clicv2.contract import Figure, Manifest, local_score, open_version
from clicv2.errors import ContractError
from clicv2.spec import PreprocessSpec

SPEC = PreprocessSpec(background=(1, 2, 3))
WEIGHTS = b"the model"


def manifest(**changes: object) -> Manifest:
    whole = Manifest(
        name="clicv2",
        version=1,
        method="CLICv2",
        recipe={"steps": 10, "parts": ["a", "b"]},
        data={"pool": "häuser"},
        preprocess=SPEC,
        fingerprint=SPEC.fingerprint(),
        grid=(12, 12),
        embedding_size=512,
        calibration={"slope": 1.5},
        reference=(0.1, 0.2, 0.4, 0.8),
        figures={"pcc": Figure(0.8, 0.7, 0.9)},
        measured={"seconds": 0.01},
        sha256=sha256(WEIGHTS).hexdigest(),
    )
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def model(folder: Path, *versions: int) -> Path:
    for version in versions:
        place = folder / str(version)
        place.mkdir()
        (place / contract.MODEL_FILE).write_bytes(WEIGHTS)
        manifest(version=version).save(place / contract.MANIFEST_FILE)
    return folder


def test_a_manifest_survives_being_stored(tmp_path: Path) -> None:
    manifest().save(tmp_path / "m.json")
    assert Manifest.load(tmp_path / "m.json") == manifest()


@pytest.mark.parametrize(
    "change",
    [
        {"preprocess": None},
        {"preprocess": {**SPEC.to_dict(), "algorithm": 0}},
        {"preprocess": {**SPEC.to_dict(), "height": 100}},
        {"fingerprint": "0" * 16},
        {"figures": {"pcc": {"value": 1.0}}},
        {"grid": 12},
        {"surprise": 1},
        {"reference": []},
        {"reference": [0.3, 0.2]},
        {"reference": [0.3, float("nan")]},
        {"reference": ["a", "b"]},
    ],
    ids=str,
)
def test_a_manifest_that_is_not_ours_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "m.json"
    manifest().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ContractError, match=r"m\.json"):
        Manifest.load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"1", b"\xff\xfe", b"{}"])
def test_a_manifest_that_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(ContractError, match=r"m\.json"):
        Manifest.load(tmp_path / "m.json")


@pytest.mark.parametrize(
    ("score", "percentile"),
    [(0.0, 0.0), (0.1, 0.0), (0.15, 100 / 6), (0.2, 100 / 3), (0.3, 50.0), (0.8, 100.0), (1.0, 100.0)],
)
def test_the_percentile_is_read_between_the_references(score: float, percentile: float) -> None:
    assert manifest().percentile(score) == pytest.approx(percentile)


def test_the_highest_version_is_opened(tmp_path: Path) -> None:
    opened = open_version(model(tmp_path, 2, 10, 9))
    assert (opened.folder, opened.manifest.version) == (tmp_path / "10", 10)
    assert opened.model_file.read_bytes() == WEIGHTS
    assert open_version(tmp_path, 2).manifest.version == 2


def test_what_is_missing_or_altered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no model version"):
        open_version(tmp_path)
    folder = model(tmp_path, 1)
    with pytest.raises(ContractError, match=r"\[1\], not 2"):
        open_version(folder, 2)
    (folder / "1" / contract.MODEL_FILE).write_bytes(b"another model")
    with pytest.raises(ContractError, match="not the file that its manifest describes"):
        open_version(folder)
    (folder / "1" / contract.MODEL_FILE).unlink()
    with pytest.raises(ContractError, match="model"):
        open_version(folder)


def test_local_scores_are_the_sigmoid_at_any_height() -> None:
    logits = np.array([[-1e30, -800.0, -2.0, 0.0], [2.0, 800.0, 1e30, np.inf]], dtype=np.float32)
    expected = [[0.0, 0.0, 1 / (1 + np.e**2), 0.5], [1 / (1 + np.e**-2), 1.0, 1.0, 1.0]]
    result = local_score(logits)
    assert result.dtype == np.float32
    assert np.allclose(result, expected, atol=1e-7)
