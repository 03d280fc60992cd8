"""Compressed tar shards, read as they stream by: what is in one can be had when it passes, and never again.

A plain tar says where each picture's bytes lie, so that any thread reads them when it is its turn. Out of a compressed
one they are taken as soon as they are found, and wait in memory: not more of them than `Room` has.
"""

import bz2
import errno
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Condition
from typing import BinaryIO, cast

from clicv2.errors import TooLarge
from clicv2.sources import is_picture
from clicv2.tars import regular_files

# Bytes of pictures that wait for their turn. A larger one waits alone.
ROOM = 64 * 1024 * 1024
_PIECE = 64 * 1024

_OPEN: dict[str, Callable[[Path], object]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tbz2": bz2.open,
    ".tar.xz": lzma.open,
    ".txz": lzma.open,
}
SUFFIXES = tuple(_OPEN)
# What nobody here can read, and somebody should be told of.
UNREAD_SUFFIXES = (".tar.zst", ".tzst", ".tar.lz4")

# What a damaged one raises, by whichever part notices.
DAMAGED = (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError)


class Room:
    """Counts bytes that are held, for whoever holds more to wait until others have let go of theirs."""

    def __init__(self, most: int = ROOM) -> None:
        self._most = most
        self._held = 0
        self._changed = Condition()

    def take(self, size: int) -> None:
        """Waits while there is no room; what is larger than all of it gets in when nothing else is there."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + size <= self._most)
            self._held += size

    def leave(self, size: int) -> None:
        with self._changed:
            self._held -= size
            self._changed.notify_all()


class Member:
    """A picture in a compressed shard: `hold` it while it is the last that was found, `read` it later, once.

    Attributes:
        name: as the shard has it.
        file: the shard.
        size: in bytes.
    """

    def __init__(self, name: str, file: Path, size: int, load: Callable[[], bytes], room: Room) -> None:
        self.name = name
        self.file = file
        self.size = size
        self._load = load
        self._room = room
        self._held: bytes | Exception | None = None

    def hold(self, max_bytes: int | None = None) -> None:
        """Take the bytes into memory, unless there are more than `max_bytes`; waits for room."""
        if max_bytes is not None and self.size > max_bytes:
            return
        self._room.take(self.size)
        try:
            self._held = self._load()
        except DAMAGED as error:
            self._held = error

    def read(self, max_bytes: int | None = None) -> bytes:
        """The bytes. Raises TooLarge if there are more than `max_bytes`, OSError if the shard is damaged there."""
        if max_bytes is not None and self.size > max_bytes:
            raise TooLarge("bytes", self.size, max_bytes)
        held, self._held = self._held, None
        if held is None:
            raise ValueError(f"{self.name} is not held")
        self._room.leave(self.size)
        if isinstance(held, Exception):
            raise OSError(errno.EIO, f"the shard is damaged: {why(held)}") from held
        return held


def is_packed(file: Path) -> bool:
    return file.name.lower().endswith(SUFFIXES)


def is_unread(file: Path) -> bool:
    return file.name.lower().endswith(UNREAD_SUFFIXES)


def packed_members(shard: Path, room: Room) -> Iterator[Member]:
    """The pictures in a compressed tar, in its order; each is gone when the next one is asked for.

    Raises one of DAMAGED: after what comes before the damage.
    """
    with ExitStack() as after:
        stream = cast("BinaryIO", after.enter_context(_opened(shard)))  # type: ignore[arg-type]  # each of three kinds
        for tar, member in regular_files(stream, "r|"):
            if is_picture(member.name):
                yield Member(member.name.removeprefix("./"), shard, member.size, _Loader(tar, member), room)
        while stream.read(_PIECE):  # its checksum comes at the very end
            pass


def why(error: Exception) -> str:
    return str(error) or type(error).__name__


class _Loader:
    def __init__(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self._tar, self._member = tar, member

    def __call__(self) -> bytes:
        content = self._tar.extractfile(self._member)
        if content is None:
            raise tarfile.ReadError("an entry without bytes")
        return content.read()


def _opened(shard: Path) -> object:
    name = shard.name.lower()
    return next(opened for suffix, opened in _OPEN.items() if name.endswith(suffix))(shard)
