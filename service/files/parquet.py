"""Parquet: written whole at the end, out of a file of lines that can be continued until then.

A Parquet file is none before its last bytes are there, and nothing can be added to it afterwards.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Self

from pydantic import ValidationError

from service.files.errors import BadScores, FilesError, Missing, Unwritable
from service.files.names import one_line
from service.files.rows import Columns, Row
from service.files.score_file import Making, ScoreFile, check_columns, check_making, no_file, read_lines

# Rows in memory at once, and those of a row group.
_GROUP = 10_000


class ParquetFile:
    """See `ScoreFile`, which it is until `finish`."""

    def __init__(self, path: Path, making: Making) -> None:
        """Raises Missing, Unwritable, BadScores."""
        _library()
        if path.exists() and not path.is_file():
            raise no_file(path)
        self._path = path
        self._making = making
        self._lines_path = path.with_name(path.name + ".partial.jsonl")
        self._lines = ScoreFile(self._lines_path, "jsonl", making)
        if path.exists() and self._lines.empty:
            self._unpack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.__exit__()

    @property
    def place(self) -> Path:
        return self._lines_path if self._lines_path.exists() else self._path

    def forget_errors(self) -> int:
        return self._lines.forget_errors()

    def prior(self) -> Iterator[Row]:
        return self._lines.prior()

    def write(self, row: Row) -> None:
        self._lines.write(row)

    def finish(self) -> None:
        """Put the file in its place as a whole."""
        pyarrow, parquet = _library()
        schema = _schema(pyarrow, self._making.columns)
        unfinished = self._path.with_name(self._path.name + ".partial")
        try:
            with parquet.ParquetWriter(unfinished, schema) as writer:
                for rows in _groups(read_lines(self._lines_path, "jsonl")):
                    writer.write_table(pyarrow.Table.from_pylist([row.model_dump() for row in rows], schema=schema))
            with unfinished.open("rb") as written:
                os.fsync(written.fileno())  # or a power cut takes the rows, for their lines are gone
            unfinished.replace(self._path)
            self._lines_path.unlink()
        except OSError as error:
            with suppress(OSError):  # there may be room for others' files again; the rows are in their lines
                unfinished.unlink(missing_ok=True)
            raise Unwritable(self._path, error) from error

    def _unpack(self) -> None:
        """A finished file as lines, which more can be added to; they take the place of the empty ones, which are held
        until then so that no other process does the same."""
        unfinished = self._lines_path.with_name(self._lines_path.name + ".new")
        unfinished.unlink(missing_ok=True)
        lines = ScoreFile(unfinished, "jsonl", self._making)
        try:
            for row in read_parquet(self._path, self._making.columns):
                check_making(self._path, row, self._making)
                lines.write(row)
            lines.rename(self._lines_path)
        except FilesError:
            unfinished.unlink()
            self._lines_path.unlink()
            lines.__exit__()
            raise
        finally:
            self._lines.__exit__()
        self._lines = lines


def read_parquet(path: Path, expected: Columns | None = None) -> Iterator[Row]:
    """Raises Missing, BadScores."""
    pyarrow, parquet = _library()
    try:
        with parquet.ParquetFile(path) as file:
            check_columns(path, tuple(file.schema_arrow.names), expected)
            for batch in file.iter_batches(_GROUP):
                yield from map(Row.model_validate, batch.to_pylist())
    except (OSError, pyarrow.ArrowException, ValidationError) as error:
        raise BadScores(f"{path} is no file of scores: {one_line(error)}") from error


def _library() -> tuple[ModuleType, ModuleType]:
    """Raises Missing: it is 150 MB, and most have no use for it."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise Missing("pyarrow", "Parquet") from None
    return pyarrow, parquet


def _schema(pyarrow: ModuleType, wanted: Columns) -> object:
    kinds = {name: pyarrow.float64() for name in ("score", "percentile", "entropy", "contrast")}
    kinds |= {name: pyarrow.int64() for name in ("width", "height", "bytes")}
    return pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in wanted])


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group
