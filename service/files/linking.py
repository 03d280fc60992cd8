"""Chosen pictures as a folder of links, or as a list for other programs."""

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from service.files.errors import FilesError, Unwritable
from service.files.finding import Source, locate
from service.files.heatmaps import slug
from service.files.names import as_path
from service.files.printing import put

# In memory; a compressed shard is read once for each so many.
_AT_ONCE = 10_000


class Unlistable(FilesError):
    """A path that would be two in a list of lines."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} holds a line's end, and would be two lines: use --null, or --links")


def print_list(paths: Iterable[str], *, zero: bool) -> None:
    """Texts as the paths themselves, byte for byte. Raises Unlistable, Unwritable, BrokenPipeError."""
    end = b"\0" if zero else b"\n"
    rest = iter(paths)
    while some := list(islice(rest, _AT_ONCE)):
        names = [os.fsencode(as_path(path)) for path in some]
        for name, path in zip(names, some, strict=True):
            if end in name:
                raise Unlistable(path)
        put(b"".join(name + end for name in names))


def open_folder(folder: Path) -> None:
    """Make a folder for links. Raises Unwritable; it must be empty, for nobody could tell a former choice from this."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FilesError(f"{folder} is not empty; name a new folder for the links")
    except OSError as error:
        raise Unwritable(folder, error) from error


def link(paths: Iterable[str], folder: Path) -> tuple[int, int]:
    """Links to these, numbered in their order; members of shards are copied out, for no link leads there.

    Returns how many there are now, and how many files were gone. Raises Unwritable.
    """
    made = asked = 0
    numbered = enumerate(paths, 1)
    while some := list(islice(numbered, _AT_ONCE)):
        asked += len(some)
        names = {as_path(path): _name(number, path) for number, path in some}
        made += sum(_put(folder / names[path], source) for path, source in locate(names))
    return made, asked - made


def _put(place: Path, source: Source) -> bool:
    """False if there are no bytes to put there. Raises Unwritable."""
    data = None
    if source.size is not None:
        try:
            data = source.read()
        except OSError:  # the shard is damaged by now
            return False
    try:
        if data is None:
            place.symlink_to(source.file.absolute())
        else:
            place.write_bytes(data)
    except OSError as error:
        raise Unwritable(place, error) from error
    return True


def _name(number: int, path: str) -> str:
    stem, dot, suffix = slug(path).rpartition(".")
    return f"{number:06}-{stem}.{suffix}" if dot else f"{number:06}-{suffix}"
