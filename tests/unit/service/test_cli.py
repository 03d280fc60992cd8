import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import encode, noise
from typer.testing import CliRunner

from service.cli import app

PNG = encode(noise(64, 64), "PNG")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    return path


def test_a_table(repository: Path, picture: Path) -> None:
    result = CliRunner().invoke(app, ["score", str(picture), "--model-repository", str(repository)])
    assert result.exit_code == 0, result.output
    score, path = result.output.split()
    assert 0 <= float(score) <= 1
    assert path == str(picture)


def test_many_at_once_stay_in_order(repository: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for number, path in enumerate(paths):
        path.write_bytes(encode(noise(64, 64, number), "PNG"))
    arguments = ["score", *map(str, paths), "--json", "--model-repository", str(repository)]
    result = CliRunner().invoke(app, arguments)
    assert [json.loads(line)["path"] for line in result.output.splitlines()] == [str(path) for path in paths]


@pytest.mark.parametrize("command", ["serve", "score"])
def test_no_model(command: str, picture: Path, tmp_path: Path) -> None:
    arguments = [str(picture)] if command == "score" else []
    result = CliRunner().invoke(app, [command, *arguments, "--model-repository", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert "no model version in" in result.output


def test_settings_that_make_no_sense(repository: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is named, and none is shown: some are secrets."""
    monkeypatch.setenv("CLICV2_DEADLINE_S", "-1")
    monkeypatch.setenv("CLICV2_MAX_PIXELS", "a secret")
    monkeypatch.setenv("PORT", "80800")
    result = CliRunner().invoke(app, ["score", str(picture), "--model-repository", str(repository)])
    assert result.exit_code == 2
    said = [line.partition(": ")[2].partition(": ") for line in result.output.splitlines()]
    assert {name: bool(what) for name, _, what in said} == dict.fromkeys(
        ("PORT", "CLICV2_DEADLINE_S", "CLICV2_MAX_PIXELS"), True
    )
    assert "secret" not in result.output
    assert "pydantic" not in result.output


def closed(number: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, begun with one of its three streams closed: `clicv2 ... >&-`."""
    command = [sys.executable, "-m", "service.cli", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, preexec_fn=lambda: os.close(number)
    )


def test_streams_that_are_closed(repository: Path, picture: Path, tmp_path: Path) -> None:
    options = ("--model-repository", repository)
    nothing = closed(0, "score", "-", *options)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "there are no pictures" in nothing.stderr
    unheard = closed(1, "score", picture, *options)
    assert unheard.returncode == 1
    assert unheard.stderr == "clicv2: the standard output cannot be written: Bad file descriptor\n"
    out = tmp_path / "s.csv"
    for number in (1, 2):
        assert closed(number, "score", picture, "--output", out, *options).returncode == 0
        assert len(out.read_text().splitlines()) == 2
        out.unlink()
