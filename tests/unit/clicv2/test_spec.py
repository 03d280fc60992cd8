"""The spec's fingerprint tells apart whatever may change the pixels."""

import dataclasses
import re
import subprocess
import sys

import pytest

from clicv2.spec import PreprocessSpec

CHANGED: dict[str, object] = {
    "height": 191,
    "width": 191,
    "background": (255, 255, 254),
    "reducing_gap": 2.0,
    "dct_scaling": False,
    "exif_orientation": False,
}
# Fields with one value so far; __post_init__ refuses any other.
FIXED = {"resample": "lanczos", "sixteen_bit": "clip", "frame": 1}


def test_the_tables_name_every_field() -> None:
    assert {f.name for f in dataclasses.fields(PreprocessSpec)} == CHANGED.keys() | FIXED.keys()


@pytest.mark.parametrize("field", CHANGED)
def test_each_field_changes_the_fingerprint(field: str) -> None:
    changed = dataclasses.replace(PreprocessSpec(), **{field: CHANGED[field]})  # type: ignore[arg-type]
    assert changed.fingerprint() != PreprocessSpec().fingerprint()


def test_the_algorithm_changes_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = PreprocessSpec().fingerprint()
    monkeypatch.setattr("clicv2.spec.ALGORITHM", 0)
    assert PreprocessSpec().fingerprint() != before


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    code = "from clicv2.spec import PreprocessSpec; print(PreprocessSpec().fingerprint())"
    told = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {PreprocessSpec().fingerprint()}
    assert re.fullmatch(r"[0-9a-f]{16}", told.pop())


@pytest.mark.parametrize(
    "fields",
    [
        {"height": 0},
        {"width": -1},
        {"background": (0, 0)},
        {"background": (0, 0, 0, 0)},
        {"background": (0, 0, 256)},
        {"background": (-1, 0, 0)},
        {"reducing_gap": 0.9},
        {"reducing_gap": float("nan")},
        *({name: value} for name, value in FIXED.items()),
    ],
    ids=str,
)
def test_a_spec_that_cannot_be_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter({"height": "size", "width": "size"}.get(f, f) for f in fields))):
        PreprocessSpec(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": 0},
        {"algorithm": None},
        {"background": None},
        {"background": "white"},
        {"background": [1, 2]},
        {"unknown": 1},
        {"height": "192"},
    ],
    ids=str,
)
def test_a_stored_spec_that_is_not_ours_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        PreprocessSpec.from_dict(PreprocessSpec().to_dict() | change)
