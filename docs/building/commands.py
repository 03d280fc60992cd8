"""The reference of the commands out of what their `--help` prints."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, cast

import typer

from service.cli import app as service_app
from training.cli import app as training_app


class _Parameter(Protocol):
    name: str
    opts: Sequence[str]
    param_type_name: str
    required: bool
    help: str | None


class _Command(Protocol):
    help: str | None
    params: Sequence[_Parameter]
    commands: Mapping[str, "_Command"]  # of a group alone


def markdown() -> str:
    programs = {"clicv2": service_app, "clicv2-train": training_app}
    return "\n".join(line for name, app in programs.items() for line in _program(name, app))


def _program(name: str, app: typer.Typer) -> Iterator[str]:
    yield f"## {name}\n"
    for path, command in commands(name, app):
        yield f"### {path}\n"
        yield from map(_paragraph, (command.help or "").split("\n\n"))
        rows = [f"| {_names(each)} | {_cell(each)} |" for each in command.params if each.name != "help"]
        yield from ("| Argument or option | What it is |", "|---|---|", *rows, "") if rows else ()


def commands(name: str, app: typer.Typer) -> Iterator[tuple[str, _Command]]:
    """Every command and how it is called, as `clicv2 keys create`."""
    return _below(name, cast("_Command", typer.main.get_command(app)))


def _below(path: str, command: _Command) -> Iterator[tuple[str, _Command]]:
    children: Mapping[str, _Command] = getattr(command, "commands", {})
    if not children:
        yield path, command
    for name, child in children.items():
        yield from _below(f"{path} {name}", child)


def _paragraph(text: str) -> str:
    """One that begins with a backspace is not to be wrapped: examples, or a list."""
    if not text.startswith("\b"):
        return f"{_plain(text)}\n"
    return f"```text\n{text.removeprefix(chr(8)).strip()}\n```\n"


def _names(parameter: _Parameter) -> str:
    names = [parameter.name.upper()] if parameter.param_type_name == "argument" else parameter.opts
    return ", ".join(f"`{name}`" for name in names)


def _cell(parameter: _Parameter) -> str:
    return _plain(parameter.help or "").replace("|", "\\|") + (" Required." if parameter.required else "")


def _plain(text: str) -> str:
    """What Markdown would take for its own; options and paths are code."""
    return re.sub(r"(?<![\w`])(--[a-z][\w-]*|[\w./-]+\.(?:yaml|onnx|pt|csv)\b)", r"`\1`", text.replace("*", "\\*"))
