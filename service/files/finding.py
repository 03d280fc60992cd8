"""Arguments -> pictures, one by one: files, folders, tar shards, patterns, and what comes on the standard input."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Protocol

from clicv2.sources import (
    SHARD,
    SUFFIXES,
    Identity,
    ImageSource,
    LinkedFolder,
    entries,
    identity,
    is_folder,
    members,
    walk,
)
from service.files.names import as_text, one_line
from service.files.packed import DAMAGED, Member, Room, is_packed, is_unread, packed_members
from service.files.piped import Piped, beginning, listed

STDIN = "-"
_MAGIC = frozenset("*?[")


class Source(Protocol):
    """Where a picture's bytes come from.

    Attributes:
        size: in bytes; None where only the file system knows.
    """

    @property
    def file(self) -> Path: ...

    @property
    def size(self) -> int | None: ...

    def read(self, max_bytes: int | None = None) -> bytes:
        """The bytes. Raises OSError; TooLarge if there are more than `max_bytes`."""
        ...


@dataclass(frozen=True, slots=True)
class Picture:
    """A file, or a member of a shard, that is taken to be a picture.

    Attributes:
        path: its place, as `names.as_text` writes it; of a member SHARD/NAME.
    """

    path: str
    source: Source

    def hold(self, max_bytes: int | None) -> None:
        """To be called before the next one is found: after that, what streams by is gone."""
        if isinstance(self.source, Member | Piped):
            self.source.hold(max_bytes)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A place where there may be pictures that nobody gets to see."""

    path: str
    why: str


Found = Picture | Trouble


class Uncountable(Exception):
    """How many pictures there are is known only when all of a compressed shard has been read."""


@dataclass(slots=True)
class Finder:
    """What to look through.

    Attributes:
        arguments: paths, patterns, or `-` for a list on the standard input, or a picture itself.
        zero: the list's paths end in a zero byte and not in a line's end.
        skip: a folder that is left out although it may lie within: our own pictures go there.
        unpack: False: raise Uncountable at a compressed shard.
        linked: links to folders that were met so far and not followed.
    """

    arguments: Sequence[str]
    zero: bool = False
    skip: Path | None = None
    unpack: bool = True
    linked: int = field(default=0, init=False)
    _room: Room = field(default_factory=Room, init=False)

    def check(self) -> None:
        """Raises ValueError when there is nothing at an argument, before anything is begun."""
        for argument in self.arguments:
            path = Path(argument)
            if argument == STDIN or _there(path):
                continue
            if not _MAGIC.intersection(argument):
                raise ValueError(f"no such file or folder: {as_text(argument)}")
            if not any(_matches(path)):
                raise ValueError(f"nothing matches {as_text(argument)}")

    @property
    def countable(self) -> bool:
        """Whether looking through it once more is possible."""
        return STDIN not in self.arguments

    def __iter__(self) -> Iterator[Found]:
        return chain.from_iterable(map(self._of, self.arguments))

    def _of(self, argument: str) -> Iterator[Found]:
        if argument == STDIN:
            return self._piped()
        path = Path(argument)
        if _there(path) or not _MAGIC.intersection(argument):
            return self._at(path)
        return chain.from_iterable(map(self._in_file, filter(_is_wanted, _matches(path))))

    def _piped(self) -> Iterator[Found]:
        first, is_picture = beginning()
        if is_picture:
            return iter([Picture(STDIN, Piped(first))])
        return chain.from_iterable(map(self._at, map(Path, listed(first, zero=self.zero))))

    def _at(self, path: Path) -> Iterator[Found]:
        """What was named is taken to be a picture, whatever its name; a folder is looked through."""
        return self._beneath(path) if is_folder(path) else self._in_file(path)

    def _beneath(self, folder: Path) -> Iterator[Found]:
        troubles: list[Trouble] = []

        def note(error: OSError) -> None:
            if isinstance(error, LinkedFolder):
                self.linked += 1
            else:
                troubles.append(_trouble(Path(error.filename or folder), error))

        for file in filter(_is_wanted, walk(folder, note, _identities(self.skip))):
            yield from troubles
            troubles.clear()
            yield from self._in_file(file)
        yield from troubles

    def _in_file(self, file: Path) -> Iterator[Found]:
        if not is_shard(file):
            yield Picture(as_text(str(file)), ImageSource(file.name, file))
            return
        if is_unread(file):
            yield Trouble(as_text(str(file)), "a tar that is compressed in a way that is not read here: unpack it")
            return
        if is_packed(file) and not self.unpack:
            raise Uncountable
        try:
            for source in _members(file, self._room):
                yield Picture(as_text(member_path(source)), source)
        except DAMAGED as error:
            yield _trouble(file, error)


def locate(paths: Iterable[str]) -> Iterator[tuple[str, Source]]:
    """Where the pictures at these paths, no texts, lie by now, in no order; those that are gone are left out.

    To be read one by one, before the next is asked for.
    """
    in_shards: dict[Path, set[str]] = {}
    for path in paths:
        file = Path(path)
        shard = next((parent for parent in file.parents if is_shard(parent) and parent.is_file()), None)
        if shard:
            in_shards.setdefault(shard, set()).add(path)
        elif file.is_file():
            yield path, ImageSource(file.name, file)
    for shard, wanted in in_shards.items():
        try:
            for source in _members(shard, Room()):
                path = member_path(source)
                if path in wanted:
                    wanted.remove(path)  # of two members of one name the first was scored
                    if isinstance(source, Member):
                        source.hold()
                    yield path, source
                if not wanted:
                    break
        except DAMAGED:
            continue


def member_path(source: ImageSource | Member) -> str:
    return f"{source.file}/{source.name}"


def is_shard(file: Path) -> bool:
    return file.suffix.lower() == SHARD or is_packed(file) or is_unread(file)


def _members(shard: Path, room: Room) -> Iterator[ImageSource] | Iterator[Member]:
    """Raises one of DAMAGED."""
    return packed_members(shard, room) if is_packed(shard) else members(shard)


def _trouble(path: Path, error: Exception) -> Trouble:
    return Trouble(as_text(str(path)), why(error))


def why(error: Exception) -> str:
    """An error without the path, which is told anyway."""
    return one_line(error.strerror if isinstance(error, OSError) and error.strerror else error) or type(error).__name__


def _identities(folder: Path | None) -> frozenset[Identity]:
    known = identity(folder) if folder else None
    return frozenset([known]) if known else frozenset()


def _there(path: Path) -> bool:
    """Also when it is a link to nothing, or out of reach: the attempt to read it says more."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        pass
    return True


def _is_wanted(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES or is_shard(file)


def _matches(pattern: Path) -> Iterator[Path]:
    """Files that match as in a shell, where ** is any folders; a folder is never listed whole."""
    parts = pattern.parts
    plain = next(n for n, part in enumerate(parts) if _MAGIC.intersection(part))
    return _below(Path(*parts[:plain]), parts[plain:])


def _below(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    head, *rest = patterns
    if head == "**":
        for file in walk(folder):
            if _fits(file.relative_to(folder).parts, patterns):
                yield file
    elif not _MAGIC.intersection(head):
        path = folder / head
        if rest:
            yield from _below(path, rest)
        elif _there(path) and not is_folder(path):
            yield path
    else:
        for path in (Path(entry.path) for entry in entries(folder) if _fits_name(entry.name, head)):
            if rest:
                yield from _below(path, rest)
            elif not is_folder(path):
                yield path


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not names
    head, *rest = patterns
    if head == "**":
        return not rest or any(_fits(names[start:], rest) for start in range(len(names)))
    return bool(names) and _fits_name(names[0], head) and _fits(names[1:], rest)


def _fits_name(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))
