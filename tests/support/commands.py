"""The commands over files as a program of their own, in a process or in this one."""

import os
import subprocess
import sys
from pathlib import Path

import typer

from service.commands import check, report, score, select

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, str(Path(__file__)))

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command()(score.score)
app.command()(report.report)
app.command()(select.select)
app.command()(check.check)


def started(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CLICV2_THREADS": "2"}
    return subprocess.Popen([*COMMAND, *map(os.fspath, map(_text, arguments))], env=environment, **options)


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    process = started(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _text(argument: object) -> object:
    return argument if isinstance(argument, str | bytes | os.PathLike) else str(argument)


if __name__ == "__main__":
    app()
