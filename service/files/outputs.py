"""Where rows go: to the standard output, or to a file in which more can follow."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from service.files.errors import BadScores
from service.files.parquet import ParquetFile, read_parquet
from service.files.printing import Printed
from service.files.rows import Row
from service.files.score_file import LineFormat, Making, ScoreFile, read_lines


class Form(StrEnum):
    """What rows look like."""

    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


_SUFFIXES = {".csv": Form.CSV, ".jsonl": Form.JSONL, ".ndjson": Form.JSONL, ".parquet": Form.PARQUET}


class Output(Protocol):
    """Takes rows.

    Attributes:
        place: the file that has them now; None for the standard output.
    """

    @property
    def place(self) -> Path | None: ...

    def forget_errors(self) -> int:
        """Take out the rows with errors, before `prior`; how many there were. Raises FilesError."""
        ...

    def prior(self) -> Iterator[Row]:
        """Those that are there already; to be read to their end before `write`. Raises FilesError."""
        ...

    def write(self, row: Row) -> None: ...

    def finish(self) -> None:
        """All are there."""
        ...


def form_of(path: Path | None, wanted: Form | None) -> Form:
    """What was asked for, or what the file's name says. Raises ValueError where that makes no sense."""
    if path is None:
        if wanted is Form.PARQUET:
            raise ValueError("Parquet is nothing for the standard output: name a file with --output")
        return wanted or Form.TABLE
    form = wanted or _SUFFIXES.get(path.suffix.lower())
    if form in (None, Form.TABLE):
        raise ValueError(f"{path}: choose --format csv, jsonl or parquet; a table is for reading, not for files")
    return Form(form)


def open_output(path: Path | None, form: Form, making: Making) -> AbstractContextManager[Output]:
    """Raises FilesError."""
    if path is None:
        return nullcontext(Printed(None if form is Form.TABLE else _lines(form), making.columns))
    if form is Form.PARQUET:
        return ParquetFile(path, making)
    return ScoreFile(path, _lines(form), making)


def _lines(form: Form) -> LineFormat:
    return "csv" if form is Form.CSV else "jsonl"


def read_scores(path: Path) -> Iterator[Row]:
    """The rows of a file of scores, of which its name says the form. Raises FilesError."""
    match _SUFFIXES.get(path.suffix.lower()):
        case Form.PARQUET:
            return read_parquet(path)
        case Form.CSV:
            return read_lines(path, "csv")
        case Form.JSONL:
            return read_lines(path, "jsonl")
    raise BadScores(f"{path}: a file of scores is called .csv, .jsonl or .parquet")
