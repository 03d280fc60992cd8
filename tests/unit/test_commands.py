"""Every command of both console scripts says what it does: a stray bracket in a help text is markup that raises."""

from collections.abc import Iterator

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
