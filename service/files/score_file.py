"""A file of scores that grows by a row at a time, and is taken up again after any end of the process.

Nothing but the rows is kept: they say of which model they are and whether there are heatmaps, so that another run can
tell whether it may add to them. A row is one line and one write; of a process or a machine that was killed at most
the last line is torn, and is taken off.
"""

import csv
import fcntl
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import FileIO, StringIO
from pathlib import Path
from typing import BinaryIO, Literal, Self

from pydantic import ValidationError

from service.files.errors import BadScores, Unwritable
from service.files.names import as_text
from service.files.rows import HEATMAP, Columns, Row, columns

LineFormat = Literal["csv", "jsonl"]

_DIGITS = 12  # of a model's sha256, as everywhere where people read it


@dataclass(frozen=True, slots=True)
class Making:
    """How rows come about; rows of one file must agree in it.

    Attributes:
        model, model_sha256: as in the rows.
        heatmaps: the folder that they go to; None: there are none.
    """

    model: str
    model_sha256: str
    heatmaps: Path | None = None

    @classmethod
    def by(cls, name: str, version: int, sha256: str, heatmaps: Path | None) -> Self:
        return cls(f"{name}:{version}", sha256[:_DIGITS], heatmaps)

    @property
    def columns(self) -> Columns:
        return columns(heatmaps=self.heatmaps is not None)


@dataclass(slots=True)
class Tally:
    """What a file holds."""

    rows: int = 0
    errors: int = 0

    def add(self, row: Row) -> None:
        self.rows += 1
        self.errors += row.error is not None


def line(row: Row, form: LineFormat, wanted: Columns) -> bytes:
    values = row.model_dump(include=set(wanted))
    if form == "jsonl":
        return (json.dumps({name: values[name] for name in wanted}, ensure_ascii=False) + "\n").encode()
    return _csv([values[name] for name in wanted])


def head(form: LineFormat, wanted: Columns) -> bytes:
    """What comes before the first row."""
    return _csv(wanted) if form == "csv" else b""


class ScoreFile:
    """A CSV or JSON-lines file that one process at a time adds to."""

    def __init__(self, path: Path, form: LineFormat, making: Making) -> None:
        """Open it or make it. Raises Unwritable, and BadScores if another process has it open to write."""
        self.place = path
        self._form = form
        self._making = making
        self._file = _open(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def empty(self) -> bool:
        return os.fstat(self._file.fileno()).st_size == 0

    def rename(self, place: Path) -> None:
        """Put it in another's place, of which nothing is left. Raises Unwritable."""
        try:
            os.fsync(self._file.fileno())  # after a power cut there may else be the name without the rows
            self.place.replace(place)
        except OSError as error:
            raise Unwritable(place, error) from error
        self.place = place

    def forget_errors(self) -> int:
        """Take out the rows with errors, before `prior`; how many there were.

        The others are written beside the file and put in its place as a whole: who is killed meanwhile leaves the one
        or the other. Raises Unwritable, and BadScores for what cannot be continued, before anything is changed.
        """
        place = self.place.resolve()  # a link to it stays one
        unfinished = place.with_name(place.name + ".without-errors")
        forgotten = 0
        try:
            unfinished.unlink(missing_ok=True)  # of one who was killed
            with ScoreFile(unfinished, self._form, self._making) as kept, place.open("rb") as file:
                kept._append(head(self._form, self._making.columns))
                for row in _Reader(self.place, self._form, self._making.columns).rows(file):
                    check_making(self.place, row, self._making)
                    if row.error is None:
                        kept.write(row)
                    else:
                        forgotten += 1
                if forgotten:
                    os.fchmod(kept._file.fileno(), stat.S_IMODE(os.fstat(self._file.fileno()).st_mode))
                    kept.rename(place)
                    self._file, kept._file = kept._file, self._file  # the old one is let go when nobody can find it
        except OSError as error:
            raise Unwritable(self.place, error) from error
        finally:
            unfinished.unlink(missing_ok=True)
        return forgotten

    def prior(self) -> Iterator[Row]:
        """Its rows, once, before anything is added; a torn last line is taken off then.

        Raises BadScores for what cannot be continued, before anything is changed.
        """
        reader = _Reader(self.place, self._form, self._making.columns)
        with self.place.open("rb") as file:
            for row in reader.rows(file):
                check_making(self.place, row, self._making)
                yield row
        try:
            self._file.truncate(reader.end)
            self._file.seek(reader.end)
            if not reader.end:
                self._append(head(self._form, self._making.columns))
        except OSError as error:
            raise Unwritable(self.place, error) from error

    def write(self, row: Row) -> None:
        """Add a row. Raises Unwritable."""
        try:
            self._append(line(row, self._form, self._making.columns))
        except OSError as error:
            raise Unwritable(self.place, error) from error

    def finish(self) -> None:
        """All rows are there."""

    def _append(self, data: bytes) -> None:
        while data:  # of a full disk a write takes what fits, and only the next one says so
            data = data[self._file.write(data) :]


class _Reader:
    """Rows of a file of lines.

    Attributes:
        end: where the last whole line ends, of those read so far.
    """

    def __init__(self, path: Path, form: LineFormat, expected: Columns | None) -> None:
        self._path = path
        self._form = form
        self._expected = expected
        self._number = 0
        self.end = 0

    def rows(self, file: BinaryIO) -> Iterator[Row]:
        """Raises BadScores."""
        found: Columns | None = None
        for number, text in enumerate(file, 1):
            self._number = number
            if not text.endswith(b"\n"):
                self._check_torn(text, found)
                return
            values = self._values(text)
            if found is None:
                found = self._check_columns(values)
                if self._form == "csv":
                    self.end += len(text)
                    continue
            row = self._row(self._by_column(values, found), found)
            self.end += len(text)
            yield row

    def _values(self, text: bytes) -> list[str] | dict[str, object]:
        try:
            if self._form == "csv":
                return next(csv.reader([text.decode()], strict=True), [])
            values = json.loads(text)
        except (ValueError, csv.Error) as error:
            raise self._bad(str(error)) from error
        if not isinstance(values, dict):
            raise self._bad("no object")
        return values

    def _by_column(self, values: list[str] | dict[str, object], found: Columns) -> dict[str, object]:
        if isinstance(values, dict):
            return values
        if len(values) != len(found):
            raise self._bad(f"{len(values)} columns")
        return dict(zip(found, values, strict=True))

    def _check_columns(self, values: list[str] | dict[str, object]) -> Columns:
        """Of the head of a CSV, or the first object."""
        return check_columns(self._path, tuple(values), self._expected)

    def _check_torn(self, text: bytes, found: Columns | None) -> None:
        """Raises BadScores for what cannot be the beginning of our first line."""
        if found is None:
            ours = head("csv", columns(heatmaps=True)) if self._form == "csv" else b'{"path": "'
            if not (text.startswith(ours) or ours.startswith(text)):
                raise BadScores(f"{self._path} is no file of scores")

    def _row(self, values: dict[str, object], expected: Columns) -> Row:
        if tuple(values) != expected:
            raise self._bad("other columns than the lines before")
        try:
            return Row.model_validate(values)
        except ValidationError as error:
            problem = error.errors()[0]
            raise self._bad(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error

    def _bad(self, why: str) -> BadScores:
        return BadScores(f"{self._path}, line {self._number}: not a row of scores ({why})")


def read_lines(path: Path, form: LineFormat) -> Iterator[Row]:
    """The whole rows of a file, whoever is writing to it. Raises BadScores."""
    try:
        with path.open("rb") as file:
            yield from _Reader(path, form, None).rows(file)
    except OSError as error:
        raise BadScores(f"{path} cannot be read: {error.strerror}") from error


def check_columns(path: Path, found: Columns, expected: Columns | None) -> Columns:
    """Raises BadScores unless a file with these columns holds rows, and those that are expected if any are."""
    if found not in (columns(heatmaps=False), columns(heatmaps=True)):
        raise BadScores(f"{path} is no file of scores: it has other columns")
    if expected and found != expected:
        had = "with" if HEATMAP in found else "without"
        raise BadScores(f"{path} was made {had} --heatmaps; continue it so, or choose another --output")
    return found


def check_making(path: Path, row: Row, making: Making) -> None:
    """Raises BadScores unless the row came about as those that are to follow it will."""
    if row.model and (row.model, row.model_sha256) != (making.model, making.model_sha256):
        raise BadScores(
            f"{path} was scored by {row.model} (sha256 {row.model_sha256}), now there is {making.model} (sha256 "
            f"{making.model_sha256}); choose another --output, for their scores cannot be compared"
        )
    folder = as_text(str(making.heatmaps))
    if row.heatmap and not row.heatmap.startswith(f"{folder}/"):
        raise BadScores(f"{path} has its heatmaps in {Path(row.heatmap).parents[1]}, not in {folder}")


def no_file(path: Path) -> BadScores:
    """It is a device, say."""
    return BadScores(f"{path} is no file that can be continued; leave --output away")


def _csv(values: Iterable[object]) -> bytes:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


def _open(path: Path) -> FileIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+")
    except OSError as error:
        raise Unwritable(path, error) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise no_file(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # What another process has just finished with may be gone from its place: nobody would find our rows.
        alone = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        alone = False
    if not alone:
        file.close()
        raise BadScores(f"another process is writing {path}")
    return file
