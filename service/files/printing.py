"""Rows and lists on the standard output, each as soon as it is there."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from service.files.errors import Unwritable
from service.files.rows import Columns, Row
from service.files.score_file import LineFormat, head, line


class Printed:
    """See `service.files.outputs.Output`: nothing was there before, and nothing is left to do at the end."""

    def __init__(self, form: LineFormat | None, wanted: Columns) -> None:
        """Args: form: None: a table for people."""
        self.place = None
        self._form = form
        self._columns = wanted

    def forget_errors(self) -> int:
        return 0

    def prior(self) -> Iterator[Row]:
        if self._form:
            put(head(self._form, self._columns))
        return iter(())

    def write(self, row: Row) -> None:
        """Raises Unwritable, and BrokenPipeError when nobody reads any more."""
        put(line(row, self._form, self._columns) if self._form else table_line(row))

    def finish(self) -> None:
        pass


def table_line(row: Row) -> bytes:
    if row.score is None:
        return f"{'error':>8}  {row.path}: {row.error}\n".encode()
    return f"{row.score:8.4f}  {row.path}\n".encode()


def put(data: bytes) -> None:
    """Print it. Raises Unwritable, as of a full disk, and BrokenPipeError when nobody reads any more."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        abandon()
        raise
    except OSError as error:
        abandon()
        raise Unwritable(Path("the standard output"), error) from error


def abandon() -> None:
    """Let what could not be printed go nowhere, or Python would try once more at its end, and fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
