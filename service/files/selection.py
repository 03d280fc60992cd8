"""A part of a set of pictures, by their complexity.

    high, low    the n most, or least, complex
    uniform      as many from each part of the range of scores in the set, cut into parts of one width: simple, middling
                 and complex pictures are equally frequent, however rare some of them are
    stratified   as many from each part of the set, ranked by score and cut into parts of one size: the distribution is
                 the set's own, and no chance decides whether its ends are there

Of a file that is there several times, one is to be chosen, unless copies are wanted: the one whose path comes first.

Within a part chance decides: by seed and the file's bytes alone, so that it is the same in whatever order the pictures
come and wherever they lie, and of a set that has grown most of the choice stays. What a part lacks, the others give.
Where a table does not have the digest of a file, its path stands for it.

All are kept on a disk meanwhile, and memory is bounded whatever the number.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Self

from service.files.rows import Row

# Parts that are asked for equally. Of fewer pictures than that each has its own.
_PARTS = 20


class Strategy(StrEnum):
    """See above."""

    UNIFORM = "uniform"
    HIGH = "high"
    LOW = "low"
    STRATIFIED = "stratified"


_PART_OF = {
    Strategy.UNIFORM: "COALESCE(MIN(:parts - 1, CAST((score - :low) * :parts / (:high - :low) AS INTEGER)), 0)",
    Strategy.STRATIFIED: "NTILE(:parts) OVER (ORDER BY score, luck, path) - 1",
}


class Pool:
    """Scored pictures to choose from.

    Args:
        seed: of chance.
        copies: whether files that are others' copies, byte for byte, may be chosen too.

    Attributes:
        size: how many there are.
        unscored: how many came without a score.
        left_out: how many are copies of others, once chosen.
    """

    def __init__(self, seed: int, *, copies: bool = False) -> None:
        self.size = 0
        self.unscored = 0
        self.left_out = 0
        self._seed = seed
        self._copies = copies
        self._database = sqlite3.connect("", isolation_level=None)  # in a file without a name if it is large
        self._database.execute("PRAGMA cache_size = -32768")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE pictures (path TEXT, score REAL, luck INTEGER, file TEXT)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._database.close()

    def take(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if row.score is None:
                self.unscored += 1
                continue
            self.size += 1
            file = row.path if self._copies else row.sha256 or row.path
            values = (row.path, row.score, self._luck(row.sha256 or row.path), file)
            self._database.execute("INSERT INTO pictures VALUES (?, ?, ?, ?)", values)

    def choose(self, number: int, strategy: Strategy) -> int:
        """Choose so many, or all if there are no more; how many that are. `chosen` has them then."""
        if not self._copies:
            self._leave_copies_out()
        if strategy in (Strategy.HIGH, Strategy.LOW):
            order = "DESC" if strategy is Strategy.HIGH else "ASC"
            self._database.execute(
                "CREATE TABLE chosen AS SELECT path, score FROM pictures "  # noqa: S608  # one of two words
                f"ORDER BY score {order}, luck, path LIMIT ?",
                (number,),
            )
        else:
            self._choose_by_part(number, strategy)
        found = self._database.execute("SELECT COUNT(*) FROM chosen").fetchone()
        return int(found[0])

    def chosen(self, *, most_complex_first: bool = False) -> Iterator[str]:
        """Their paths, by score."""
        order = "DESC" if most_complex_first else "ASC"
        for (path,) in self._database.execute(f"SELECT path FROM chosen ORDER BY score {order}, path"):  # noqa: S608  # ditto
            yield path

    def _leave_copies_out(self) -> None:
        self._database.execute(
            "CREATE TABLE once AS SELECT path, score, luck, file FROM "
            "(SELECT *, ROW_NUMBER() OVER (PARTITION BY file ORDER BY path) AS place FROM pictures) WHERE place = 1"
        )
        self._database.execute("DROP TABLE pictures")
        self._database.execute("ALTER TABLE once RENAME TO pictures")
        (there,) = self._database.execute("SELECT COUNT(*) FROM pictures").fetchone()
        self.size, self.left_out = there, self.size - there

    def _choose_by_part(self, number: int, strategy: Strategy) -> None:
        low, high = self._database.execute("SELECT MIN(score), MAX(score) FROM pictures").fetchone()
        parts = min(_PARTS, number)
        self._database.execute(
            f"CREATE TABLE parted AS SELECT *, {_PART_OF[strategy]} AS part FROM pictures",  # noqa: S608  # constants
            {"parts": parts, "low": low, "high": high},
        )
        sizes = dict(self._database.execute("SELECT part, COUNT(*) FROM parted GROUP BY part"))
        shares = quotas([sizes.get(part, 0) for part in range(parts)], number)
        self._database.execute("CREATE TABLE quotas (part INTEGER PRIMARY KEY, quota INTEGER)")
        self._database.executemany("INSERT INTO quotas VALUES (?, ?)", enumerate(shares))
        self._database.execute(
            "CREATE TABLE chosen AS SELECT path, score FROM (SELECT path, score, part, "
            "ROW_NUMBER() OVER (PARTITION BY part ORDER BY luck, path) AS place FROM parted) "
            "JOIN quotas USING (part) WHERE place <= quota"
        )

    def _luck(self, file: str) -> int:
        digest = hashlib.blake2b(file.encode(), digest_size=7, key=str(self._seed).encode()).digest()
        return int.from_bytes(digest)


def quotas(sizes: Sequence[int], number: int) -> list[int]:
    """How many to take of each part, of those that it has: equally many, and of the others what one lacks."""
    shares = [0] * len(sizes)
    left = min(number, sum(sizes))
    while left:
        unfilled = [part for part, size in enumerate(sizes) if shares[part] < size]
        if left < len(unfilled):  # one each of some, from end to end
            unfilled = [unfilled[(2 * n + 1) * len(unfilled) // (2 * left)] for n in range(left)]
        each = max(1, left // len(unfilled))
        for part in unfilled:
            given = min(each, sizes[part] - shares[part])
            shares[part] += given
            left -= given
    return shares
