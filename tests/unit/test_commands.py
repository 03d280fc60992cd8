"""Every command of both console scripts says what it does: a stray bracket in a help text is markup that raises.

Those of `clicv2` have examples, which are commands that there are.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from service.cli import app as service_app
from training.cli import app as training_app


def commands(app: typer.Typer) -> Iterator[tuple[str, ...]]:
    def below(command: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        if isinstance(command, TyperGroup):
            for name, child in command.commands.items():
                yield from below(child, (*path, name))

    yield from below(typer.main.get_command(app), ())


@pytest.mark.parametrize(
    ("app", "path"),
    [(app, path) for app in (service_app, training_app) for path in commands(app)],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_every_command_has_help(app: typer.Typer, path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*path, "--help"])
    assert done.exit_code == 0, done.exception
    assert "Usage" in done.output


# Up to what a shell would take for itself.
EXAMPLE = re.compile(r"\bclicv2 ([^|>&)]+)")


def examples(path: tuple[str, ...]) -> list[list[str]]:
    """As they are printed, however narrow the terminal."""
    printed = CliRunner().invoke(service_app, [*path, "--help"], env={"COLUMNS": "80"}).output
    described = re.split(r"^╭|^Options:", printed.partition("Usage")[2], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line.strip() for line in described.splitlines()[1:]]
    return [shlex.split(found) for line in lines for found in EXAMPLE.findall(line)]


def understood(arguments: list[str]) -> str:
    """The command that they lead to, or what there is not. Nothing is run: --help comes before that, not before options
    are looked up."""
    done = CliRunner().invoke(service_app, [*arguments, "--help"], prog_name="clicv2", env={"COLUMNS": "200"})
    usage = re.search(r"Usage: clicv2 ?([a-z ]*)", done.output)
    return usage[1].strip() if usage and done.exit_code == 0 else f"not understood: {done.output}"


@pytest.mark.parametrize("path", list(commands(service_app)), ids=" ".join)
def test_every_command_has_examples_that_can_be_typed(path: tuple[str, ...]) -> None:
    found = [understood(example) for example in examples(path)]
    assert not [each for each in found if each.startswith("not understood")]
    assert any(each.startswith(" ".join(path)) for each in found), "none is of this command"


@pytest.mark.parametrize("arguments", ["score --no-such-option photos/", "keys change", "models list --file x", "sore"])
def test_what_cannot_be_typed_is_seen(arguments: str) -> None:
    assert understood(shlex.split(arguments)).startswith("not understood")


def test_a_shells_completion_does_not_wait_for_the_service() -> None:
    """Which is most of a second of imports, at each press of Tab."""
    look = "import sys, service.cli; print({'fastapi', 'uvicorn', 'onnxruntime', 'jinja2', 'redis'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", look], text=True).strip() == "set()"


@pytest.mark.parametrize(
    ("words", "offered"),
    [("clicv2 se", {"select", "serve"}), ("clicv2 select --strategy ", {"high", "low", "stratified", "uniform"})],
)
def test_completion(words: str, offered: set[str]) -> None:
    asked = {"_CLICV2_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = CliRunner().invoke(service_app, [], prog_name="clicv2", env=asked)
    assert set(done.output.split()) == offered


def test_the_version_is_told() -> None:
    done = CliRunner().invoke(service_app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"clicv2 {version('clicv2-complexity')}\n")
