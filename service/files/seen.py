"""Which paths came before, in bounded memory: so nothing is scored twice, in one run or in several."""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from service.files.finding import Found

# Memory; what is more lies in a file without a name, which is gone with the process, however that ends.
_CACHE_KB = 16 * 1024


class Seen:
    """A set of paths on a disk.

    Attributes:
        again: how many `new` has left out because it had given them itself.
    """

    def __init__(self) -> None:
        self.again = 0
        # Used by one thread after another, never by two at once.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE seen (path BLOB PRIMARY KEY, given INTEGER NOT NULL) WITHOUT ROWID")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._database.close()

    def before(self, path: str) -> None:
        """It was there before anything was looked for."""
        self._add(path, given=False)

    def new(self, found: Iterable[Found]) -> Iterator[Found]:
        """Those whose paths are new."""
        for each in found:
            if self._add(each.path, given=True):
                yield each
            elif not self._find_again(each.path):
                self.again += 1

    def _add(self, path: str, *, given: bool) -> bool:
        added = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (_name(path), given))
        return added.rowcount > 0

    def _find_again(self, path: str) -> bool:
        """Whether this is the first time that one that was there before is found."""
        found = self._database.execute("UPDATE seen SET given = 1 WHERE path = ? AND given = 0", (_name(path),))
        return found.rowcount > 0


def _name(path: str) -> bytes:
    return hashlib.blake2b(path.encode(), digest_size=16).digest()
