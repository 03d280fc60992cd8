"""What a request carries: opened anew for each attempt, and read in pieces, so that no file is held in memory."""

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, Protocol

from clicv2_client.errors import UnreadablePicture

PIECE = 256 * 1024
BINARY = "application/octet-stream"

Pieces = Generator[bytes, None, None]


@dataclass(frozen=True, slots=True)
class Opened:
    """A body that is being sent.

    Attributes:
        size: in bytes; None: nobody knows before its end.
        pieces: reading one may block; to be closed.
    """

    media_type: str
    size: int | None
    pieces: Pieces

    @property
    def headers(self) -> dict[str, str]:
        length = {} if self.size is None else {"Content-Length": str(self.size)}
        return {"Content-Type": self.media_type, **length}


class Body(Protocol):
    """What a request carries.

    Attributes:
        in_memory: neither opening nor reading it blocks.
        once: its bytes can be read but once.
    """

    @property
    def in_memory(self) -> bool: ...

    @property
    def once(self) -> bool: ...

    @property
    def replayable(self) -> bool:
        """Whether it can be sent, or sent again: a stream until its first byte is taken, all else always."""
        return True

    def open(self) -> Opened:
        """Raises UnreadablePicture; so does reading the pieces."""


class Part(Body, Protocol):
    """A body that can be one of several in a form."""

    @property
    def name(self) -> str:
        """As what the service is to speak of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Bytes:
    """Bytes that are there."""

    data: bytes | bytearray | memoryview
    media_type: str = BINARY
    name: str = "picture"
    in_memory: bool = True
    once: bool = False
    replayable: bool = True

    def open(self) -> Opened:
        view = memoryview(self.data).cast("B")

        def pieces() -> Pieces:
            for start in range(0, len(view), PIECE):
                yield bytes(view[start : start + PIECE])

        return Opened(self.media_type, len(view), pieces())


class Encoded:
    """Bytes that are made when they are needed, once."""

    in_memory = False
    once = False
    replayable = True

    def __init__(self, encode: Callable[[], bytes], media_type: str, name: str) -> None:
        self.name = name
        self._encode = encode
        self._media_type = media_type
        self._made: bytes | None = None

    def open(self) -> Opened:
        if self._made is None:
            self._made = self._encode()
        return Bytes(self._made, self._media_type).open()


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """A file, by its path."""

    path: Path
    in_memory: bool = False
    once: bool = False
    replayable: bool = True

    @property
    def name(self) -> str:
        return self.path.name

    def open(self) -> Opened:
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise UnreadablePicture(f"cannot read {self.path}: {error.strerror or error}") from error
        except ValueError as error:  # a zero byte in its name
            raise UnreadablePicture(f"cannot read {str(self.path)!r}: {error}") from error

        def pieces() -> Pieces:
            with file:
                yield from _read(file, self.name)

        begun = pieces()
        return Opened(BINARY, _size(file), begun)


class Seekable:
    """A file object that can go back to where it was; it stays open."""

    once = False
    replayable = True

    def __init__(self, file: BinaryIO) -> None:
        self.name = _name(file)
        self.in_memory = isinstance(file, BytesIO)
        self._file = file
        self._start = file.tell()

    def open(self) -> Opened:
        self._file.seek(self._start)
        return Opened(BINARY, _size(self._file), _read(self._file, self.name))


class OneShot:
    """A stream that can be read but once, as a pipe; it stays open."""

    in_memory = False
    once = True

    def __init__(self, file: BinaryIO) -> None:
        self.name = _name(file)
        self.replayable = True
        self._file = file

    def open(self) -> Opened:
        def pieces() -> Pieces:
            self.replayable = False
            yield from _read(self._file, self.name)

        return Opened(BINARY, None, pieces())


class Form:
    """Several pictures in one multipart/form-data body (RFC 7578), each opened when it is its turn."""

    in_memory = False

    def __init__(self, parts: Sequence[Part], fields: Sequence[tuple[str, str]] = ()) -> None:
        self._parts = parts
        self._fields = fields

    @property
    def once(self) -> bool:
        return any(part.once for part in self._parts)

    @property
    def replayable(self) -> bool:
        return all(part.replayable for part in self._parts)

    def open(self) -> Opened:
        boundary = token_hex(16)
        return Opened(f"multipart/form-data; boundary={boundary}", None, self._pieces(boundary))

    def _pieces(self, boundary: str) -> Pieces:
        for name, value in self._fields:
            yield f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for part in self._parts:
            opened = part.open()
            try:
                yield (
                    f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{_quoted(part.name)}"\r\n'
                    f"Content-Type: {opened.media_type}\r\n\r\n"
                ).encode()
                yield from opened.pieces
            finally:
                opened.pieces.close()
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()


class Archive:
    """A zip, a tar or a tar.gz; its first bytes say which."""

    def __init__(self, part: Part) -> None:
        self.in_memory = part.in_memory
        self.once = part.once
        self._part = part

    @property
    def replayable(self) -> bool:
        return self._part.replayable

    def open(self) -> Opened:
        opened = self._part.open()
        first = next(opened.pieces, b"")
        media_type = "application/x-tar"
        if first.startswith(b"PK"):
            media_type = "application/zip"
        elif first.startswith(b"\x1f\x8b"):
            media_type = "application/gzip"
        return Opened(media_type, opened.size, _after(first, opened.pieces))


def _after(first: bytes, pieces: Pieces) -> Pieces:
    with closing(pieces):
        yield first
        yield from pieces


def of_file(file: BinaryIO) -> Part:
    """Seekable or not. Raises UnreadablePicture for one that is closed."""
    try:
        return Seekable(file) if file.seekable() else OneShot(file)
    except (OSError, ValueError) as error:
        raise UnreadablePicture(f"cannot read {_name(file)}: {error}") from error


def _read(file: BinaryIO, name: str) -> Pieces:
    try:
        while piece := file.read(PIECE):
            if not isinstance(piece, bytes):
                raise UnreadablePicture(f"{name} must be opened in binary mode")
            yield piece
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise UnreadablePicture(f"cannot read {name}: {error}") from error


def _size(file: BinaryIO) -> int | None:
    """From here to the end; None if it has none before it is read, as a pipe."""
    try:
        here = file.tell()
        size = file.seek(0, os.SEEK_END) - here
        file.seek(here)
    except OSError:
        return None
    return size


def _name(file: BinaryIO) -> str:
    name = getattr(file, "name", None)
    return Path(name).name if isinstance(name, str) else "picture"


def _quoted(name: str) -> str:
    """As browsers do it (HTML, "multipart form data")."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
