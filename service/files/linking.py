"""Chosen pictures as a folder of links, or as a list for other programs."""

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from clicv2.sources import ImageSource
from service.files.errors import FilesError, Unwritable
from service.files.finding import locate
from service.files.heatmaps import slug
from service.files.names import as_path

_AT_ONCE = 1_000


class Unlistable(FilesError):
    """A path that would be two in a list of lines."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} holds a line's end, and would be two lines: use --null, or --links")


def print_list(paths: Iterable[str], *, zero: bool) -> None:
    """Texts as the paths themselves, byte for byte. Raises Unlistable, BrokenPipeError."""
    end = b"\0" if zero else b"\n"
    for path in paths:
        name = os.fsencode(as_path(path))
        if end in name:
            raise Unlistable(path)
        sys.stdout.buffer.write(name + end)
    sys.stdout.buffer.flush()


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
    made = gone = 0
    for number, (path, source) in enumerate(_located(paths), 1):
        stem, dot, suffix = slug(path).rpartition(".")
        place = folder / (f"{number:06}-{stem}.{suffix}" if dot else f"{number:06}-{suffix}")
        if source is None:
            gone += 1
            continue
        try:
            if source.size is None:
                place.symlink_to(source.file.absolute())
            else:
                place.write_bytes(source.read())
        except OSError as error:
            raise Unwritable(place, error) from error
        made += 1
    return made, gone


def _located(paths: Iterable[str]) -> Iterator[tuple[str, ImageSource | None]]:
    texts = iter(paths)
    while some := list(islice(texts, _AT_ONCE)):
        places = locate(map(as_path, some))
        yield from ((path, places.get(as_path(path))) for path in some)
