"""A file that takes its place when it is whole, or not at all."""

import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from service.files.errors import Unwritable


class Replacement:
    """Opened before the work whose result it is to hold, so that a place that nobody may write to is told of first.

    Two of one place do not meet: the last to be done stays there. What is no file, as /dev/stdout, is written to as it
    is.
    """

    def __init__(self, place: Path) -> None:
        """Raises Unwritable."""
        self._place = place
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists() and not place.is_file():
                self._unfinished = None
                self._file = place.open("wb", buffering=0)
            else:
                target = place.resolve()  # a link to it stays one
                self._unfinished = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
                self._file = self._unfinished.open("xb", buffering=0)
        except OSError as error:
            raise Unwritable(place, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        if self._unfinished:
            self._unfinished.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """All of it, at once. Raises Unwritable, BrokenPipeError."""
        try:
            while data:  # of a full disk a write takes what fits, and only the next one says so
                data = data[self._file.write(data) :]
            if self._unfinished:
                os.fsync(self._file.fileno())
                self._unfinished.replace(self._place.resolve())
                self._unfinished = None
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Unwritable(self._place, error) from error
