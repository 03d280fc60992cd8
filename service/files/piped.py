"""What comes on the standard input: a list of paths, or one picture itself."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from clicv2.errors import TooLarge
from service.files.errors import FilesError

_PIECE = 64 * 1024
# How pictures begin; no path that anybody lists does.
_JPEG, _PNG, _RIFF, _WEBP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP"
_ENOUGH = 12  # bytes that tell


class BadList(FilesError):
    """What is no list of lines, nor a picture."""

    def __init__(self) -> None:
        super().__init__(
            "the standard input has zero bytes, so it is no list of paths, one a line, nor is it a JPEG, PNG or WebP "
            "picture; of a list by `find -print0` say --null"
        )


class Piped:
    """A picture on the standard input: `hold` it before anything else is read there.

    Args:
        first: of its bytes, those that were read already.
    """

    file = Path("/dev/stdin")
    size = None

    def __init__(self, first: bytes) -> None:
        self._data = first

    def hold(self, max_bytes: int | None = None) -> None:
        """Take it into memory, or of one that is too large as much as shows that."""
        pieces, there = [self._data], len(self._data)
        read = _reader()
        while (max_bytes is None or there <= max_bytes) and (piece := read(_PIECE)):
            pieces.append(piece)
            there += len(piece)
        self._data = b"".join(pieces)

    def read(self, max_bytes: int | None = None) -> bytes:
        """The bytes. Raises TooLarge if there are more than `max_bytes`."""
        if max_bytes is not None and len(self._data) > max_bytes:
            raise TooLarge("bytes", len(self._data), max_bytes)
        return self._data


def beginning() -> tuple[bytes, bool]:
    """The first bytes there, and whether a picture begins so."""
    read = _reader()
    first = read(_PIECE)
    while 0 < len(first) < _ENOUGH and _may_be_picture(first) and (piece := read(_PIECE)):
        first += piece
    return first, _is_picture(first)


def listed(first: bytes, *, zero: bool) -> Iterator[str]:
    """Paths, however many, each as soon as it is there. Raises BadList.

    Args:
        first: what was read already.
        zero: they end in a zero byte and not in a line's end.
    """
    read = _reader()
    rest, piece = b"", first
    while piece:
        if not zero and b"\0" in piece:
            raise BadList
        *whole, rest = (rest + piece).split(b"\0" if zero else b"\n")
        yield from map(os.fsdecode, filter(None, whole if zero else (line.removesuffix(b"\r") for line in whole)))
        piece = read(_PIECE)
    if rest:
        yield os.fsdecode(rest)


def _is_picture(first: bytes) -> bool:
    return first.startswith((_JPEG, _PNG)) or (first.startswith(_RIFF) and first.startswith(_WEBP, 8))


def _may_be_picture(first: bytes) -> bool:
    return any(known.startswith(first[: len(known)]) for known in (_JPEG, _PNG, _RIFF))


def _reader() -> Callable[[int], bytes]:
    buffered = sys.stdin.buffer
    # Without a lock that a thread would hold while it waits: Python could not end meanwhile.
    read: Callable[[int], bytes] = getattr(buffered, "raw", buffered).read
    return read
