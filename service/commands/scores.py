"""What `clicv2 score`, `report` and `select` have in common: options, ends, and pictures turned into rows."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clicv2 import contract
from service.commands.options import or_exit
from service.files.errors import BadScores, FilesError, Missing
from service.files.finding import Finder
from service.files.heatmaps import Heatmaps
from service.files.names import as_text
from service.files.outputs import read_scores
from service.files.pipeline import Scorer, rows
from service.files.progress import Bar
from service.files.rows import Row
from service.files.score_file import Making
from service.files.seen import Seen
from service.files.stopping import Stop
from service.settings import Settings

if TYPE_CHECKING:
    from service.files.local import LocalScorer

WHAT = "Pictures, folders, tars (.tar, .tar.gz, .tar.xz, .tar.bz2), 'patterns', or - for a list, or a picture, by pipe."
Paths = Annotated[list[str], typer.Argument(metavar="PATH", help=WHAT, show_default=False)]
PathsOrNone = Annotated[list[str] | None, typer.Argument(metavar="PATH", help=WHAT, show_default=False)]
Scores = Annotated[
    Path | None,
    typer.Option(help="What `clicv2 score --output` wrote; nothing is scored then.", show_default=False, exists=True),
]
Repository = Annotated[Path | None, typer.Option(help="Folder NAME/VERSION/model.onnx.", show_default=False)]
Zero = Annotated[bool, typer.Option("--null", "-0", help="Lists of paths have zero bytes, as of `find -print0`.")]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", "-j", min=1, help="Pictures at once. One a core by default.", show_default=False),
]

STOPPED = "stopped, and nothing is kept; `clicv2 score --output FILE` goes on where it was stopped, then --scores FILE"
_BROKEN_PIPE = 128 + 13  # what a shell says of a process that was ended by SIGPIPE


@contextmanager
def ending_in_words() -> Iterator[None]:
    """Ends the process with a message instead of a traceback, and silently when nobody reads its output any more."""
    try:
        yield
    except FilesError as error:
        typer.echo(f"clicv2: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        raise typer.Exit(_BROKEN_PIPE) from None
    except sqlite3.Error as error:  # what is kept on the disk meanwhile, of millions of pictures
        typer.echo(f"clicv2: the folder for temporary files, TMPDIR, cannot be used: {error}", err=True)
        raise typer.Exit(1) from None


def note(message: str) -> None:
    typer.echo(f"clicv2: {message}", err=True)


def finder_of(paths: list[str], *, zero: bool = False, skip: Path | None = None) -> Finder:
    """Ends the process if there is nothing at one of the paths."""
    finder = Finder(paths, zero, skip)
    or_exit(finder.check)
    return finder


def local_scorer(settings: Settings, threads: int, heatmaps: Heatmaps | None = None) -> "LocalScorer":
    """Ends the process if there is no model that can be trusted. Raises Missing."""
    try:
        from service.files.local import LocalScorer
    except ImportError:  # where only gateways run, say
        raise Missing("onnxruntime", "scoring on this machine", "'.[serve]'") from None

    version = or_exit(lambda: contract.open_version(settings.model_repository / settings.model, settings.model_version))
    return or_exit(lambda: LocalScorer(version, settings.limits, threads, heatmaps))


def new_rows(finder: Finder, seen: Seen, scorer: Scorer, threads: int, stop: Stop, bar: Bar) -> Iterator[Row]:
    with bar:
        for row in rows(seen.new(finder), scorer, threads, stop):
            yield row
            bar.advance()


def bar_of(finder: Finder, description: str, done: int = 0, *, shown: bool = True) -> Bar:
    return Bar(description, replace(finder, unpack=False) if finder.countable else None, done, shown=shown)


def paths_or_scores(paths: list[str] | None, scores: Path | None) -> list[str]:
    """The paths; ends the process if there is nothing to look at."""
    if not paths and not scores:
        note("which pictures? Name files or folders, or --scores FILE")
        raise typer.Exit(2)
    return paths or []


def scored_rows(paths: list[str], scorer: Scorer, threads: int, stop: Stop, *, zero: bool) -> Iterator[Row]:
    """Rows of pictures that are scored now, each once."""
    finder = finder_of(paths, zero=zero)
    with Seen() as seen:
        yield from new_rows(finder, seen, scorer, threads, stop, bar_of(finder, "scoring"))


def known_rows(paths: list[str], scores: Path, stop: Stop) -> Iterator[Row]:
    """Rows of a file of scores, of these paths or beneath them; all of them if none are given."""
    wanted = tuple(as_text(str(Path(path))) for path in paths)
    beneath = tuple("" if path == "." else f"{path}/" for path in wanted)
    found = False
    for row in read_scores(scores):
        if stop.asked:
            return
        if not wanted or row.path in wanted or row.path.startswith(beneath):
            found = True
            yield row
    if not found:
        which = f" of {', '.join(wanted)}: paths are compared as they are written there" if wanted else ""
        raise BadScores(f"{scores} has no picture{which}")


def of_model(rows: Iterable[Row], scores: Path, making: Making) -> Iterator[Row]:
    """The same. Raises BadScores if they are another model's."""
    for row in rows:
        if row.model and (row.model, row.model_sha256) != (making.model, making.model_sha256):
            raise BadScores(f"{scores} was scored by {row.model} (sha256 {row.model_sha256}), not by {making.model}")
        yield row
