"""Pictures in folders and tar shards, found one at a time: for training, and for whoever scores what lies on a disk.

A folder is never listed whole, and a shard is never unpacked: its headers say where each picture's bytes lie.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from pathlib import Path

from clicv2.errors import TooLarge
from clicv2.tars import regular_files

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
SHARD = ".tar"

# Entries of a folder that are in memory, and in order, at once; 3 MB.
PIECE = 10_000

Ignored = Callable[[OSError], object]
# Device and inode, by which a folder is known whatever it is called.
Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where an image's bytes lie.

    Attributes:
        name: path inside its folder or shard.
        file: the file, or the shard that holds it.
        offset, size: of the bytes within `file`; size None: up to its end.
    """

    name: str
    file: Path
    offset: int = 0
    size: int | None = None

    def read(self, max_bytes: int | None = None) -> bytes:
        """The bytes. Raises OSError; TooLarge, before anything is read, if there are more than `max_bytes`."""
        # Nobody may ever write to a pipe, so opening one must not wait.
        descriptor = os.open(self.file, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a file", str(self.file))
            size = status.st_size - self.offset if self.size is None else self.size
            if max_bytes is not None and size > max_bytes:
                raise TooLarge("bytes", size, max_bytes)
            return os.pread(descriptor, size, self.offset)
        finally:
            os.close(descriptor)


class LinkedFolder(OSError):
    """A link to a folder, which is not followed."""


def walk(folder: Path, on_error: Ignored | None = None, skip: frozenset[Identity] = frozenset()) -> Iterator[Path]:
    """All beneath a folder that is no folder itself, as it is found.

    The order is that of `sorted` over the paths, unless a folder has more than PIECE entries: then it comes in
    pieces, each sorted. Links to folders are not followed, so that nothing comes twice and no loop is endless.

    Args:
        on_error: told of each folder that is left out because it cannot be read, or is a LinkedFolder.
        skip: folders that are left out.
    """
    ignore = on_error or (lambda _: None)
    inside = [entries(folder, ignore)]
    while inside:
        for entry in inside[-1]:
            if entry.is_dir(follow_symlinks=False):
                if not skip or identity(entry.path) not in skip:
                    inside.append(entries(entry.path, ignore))
                    break
            elif entry.is_symlink() and is_folder(entry.path):
                ignore(LinkedFolder(errno.ELOOP, "a link to a folder", entry.path))
            else:
                yield Path(entry.path)
        else:
            inside.pop()


def entries(folder: str | Path, on_error: Ignored | None = None) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, as it is found; see `walk`."""
    by_name = attrgetter("name")
    try:
        with os.scandir(folder) as listed:
            while len(piece := sorted(islice(listed, PIECE), key=by_name)) == PIECE:
                yield from piece
        yield from piece  # the folder is closed by now: a path has more parts than a process may have open files
    except OSError as error:
        if on_error:
            on_error(error)


def members(shard: Path) -> Iterator[ImageSource]:
    """The images in an uncompressed tar, in its order.

    Raises OSError, or tarfile.TarError when it is damaged: after what comes before the damage.
    """
    with shard.open("rb") as stream:
        for _, member in regular_files(stream, "r:"):
            if is_picture(member.name):
                yield ImageSource(member.name.removeprefix("./"), shard, member.offset_data, member.size)


def is_picture(name: str) -> bool:
    """By its ending."""
    return Path(name).suffix.lower() in SUFFIXES


def is_folder(path: str | Path) -> bool:
    """Also of a link to one; False for what nobody may look at, where `Path.is_dir` raises."""
    try:
        return stat.S_ISDIR(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


def identity(folder: str | Path) -> Identity | None:
    """None if it is not there."""
    try:
        status = Path(folder).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
