"""Rows -> what a page says of them, in one pass and in bounded memory."""

import hashlib
import heapq
import math
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from service.files.rows import Row

Counts = npt.NDArray[np.int64]

BINS = 40  # of the score, from 0 to 1
DECADES = (-4, 2)  # of bytes a pixel: from 0.0001, one colour, to 100, where there is little but metadata
CELLS_A_DECADE = 12
# Up to so many pictures each is a dot of its own; beyond that, cells of a map say how many there are.
DOTS = 1_000
# Below this the model sees one colour: steps of 1.3 of 255 in the mean.
NEARLY_CONSTANT = 0.01
LISTED = 100  # of what is wrong; all are counted
GROUPS, COPIES = 50, 20  # of the same file, that are listed


@dataclass(frozen=True, slots=True)
class Scored:
    """A row that has a score, and what is shown of it.

    Attributes:
        bytes_a_pixel: None where the row does not say.
    """

    path: str
    score: float
    percentile: float | None
    sha256: str | None
    contrast: float | None
    bytes_a_pixel: float | None

    @classmethod
    def of(cls, row: Row, score: float) -> "Scored":
        pixels = (row.width or 0) * (row.height or 0)
        density = row.bytes / pixels if row.bytes and pixels else None
        return cls(row.path, score, row.percentile, row.sha256, row.contrast, density)


@dataclass(frozen=True, slots=True)
class Copies:
    """Paths of one and the same file."""

    count: int
    paths: tuple[str, ...]


@dataclass(slots=True)
class Listed:
    """The first of many."""

    count: int = 0
    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: str, what: str) -> None:
        self.count += 1
        if len(self.rows) < LISTED:
            self.rows.append((path, what))


class Extremes:
    """The pictures with the highest keys, each file once however many copies there are."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[float, float, Scored]] = []
        self._inside: set[str] = set()

    def add(self, key: float, each: Scored) -> None:
        name = each.sha256 or each.path
        if not self._most or name in self._inside:
            return
        entry = (key, _luck(each.path), each)  # of equal keys always the same stay, in whatever order they come
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        elif entry[:2] > self._heap[0][:2]:
            out = heapq.heapreplace(self._heap, entry)[2]
            self._inside.discard(out.sha256 or out.path)
        else:
            return
        self._inside.add(name)

    def best(self) -> list[Scored]:
        return [each for _, _, each in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


class Summary:
    """What the rows of a set come to.

    Attributes:
        scored: pictures with a score.
        model: (name and version, sha256) of the rows; None before the first that has them.
        histogram: [BINS].
        cells: [BINS, columns of bytes a pixel], how many pictures lie in each.
        named: of each cell that is not empty, the path that comes first.
        most, least: by score.
        dots: at most DOTS + 1 pictures, chosen by their paths.
        constant, broken: what is wrong, and with which.
        contrasted: of how many pictures the rows say how much contrast there is: not of those that a service scored.
        duplicates: the largest groups; groups, copies: of how many, and how many files could go.
    """

    def __init__(self, examples: int) -> None:
        self.scored = 0
        self.model: tuple[str, str | None] | None = None
        self.histogram: Counts = np.zeros(BINS, np.int64)
        self.cells: Counts = np.zeros((BINS, (DECADES[1] - DECADES[0]) * CELLS_A_DECADE), np.int64)
        self.named: dict[tuple[int, int], str] = {}
        self.constant, self.broken = Listed(), Listed()
        self.contrasted = 0
        self.duplicates: list[Copies] = []
        self.groups = self.copies = 0
        self._total = 0.0
        self._fine: Counts = np.zeros(10_000, np.int64)
        self._most, self._least = Extremes(examples), Extremes(examples)
        self._dots = Extremes(DOTS + 1)
        self.bytes = 0

    @property
    def most(self) -> list[Scored]:
        return self._most.best()

    @property
    def least(self) -> list[Scored]:
        return self._least.best()

    @property
    def dots(self) -> list[Scored]:
        return self._dots.best()

    @property
    def mean(self) -> float:
        return self._total / self.scored

    @property
    def median(self) -> float:
        """To four decimals."""
        at = int(np.searchsorted(np.cumsum(self._fine), self.scored / 2))
        return (at + 0.5) / len(self._fine)

    def take(self, rows: Iterable[Row]) -> None:
        """All of them, once."""
        with closing(sqlite3.connect("", isolation_level=None)) as files:  # in a file without a name if it is large
            files.execute("PRAGMA cache_size = -16384")
            files.execute("CREATE TABLE files (sha256 TEXT, path TEXT)")
            for row in rows:
                self._add(row)
                if row.sha256:
                    files.execute("INSERT INTO files VALUES (?, ?)", (row.sha256, row.path))
            self._find_copies(files)

    def _add(self, row: Row) -> None:
        if row.score is None:
            self.broken.add(row.path, row.error or "")
            return
        each = Scored.of(row, row.score)
        self.model = self.model or ((row.model, row.model_sha256) if row.model else None)
        self.scored += 1
        self.bytes += row.bytes or 0
        self._total += each.score
        self._fine[min(int(each.score * len(self._fine)), len(self._fine) - 1)] += 1
        bin_ = min(int(each.score * BINS), BINS - 1)
        self.histogram[bin_] += 1
        if each.bytes_a_pixel:
            cell = bin_, column(each.bytes_a_pixel)
            self.cells[cell] += 1
            self.named[cell] = min(each.path, self.named.get(cell, each.path))
            self._dots.add(-_luck(each.path), each)
        self._most.add(each.score, each)
        self._least.add(-each.score, each)
        if each.contrast is None:
            return
        self.contrasted += 1
        if each.contrast < NEARLY_CONSTANT:
            self.constant.add(each.path, f"contrast {each.contrast:.4f}, score {each.score:.3f}")

    def _find_copies(self, files: sqlite3.Connection) -> None:
        repeated = "SELECT sha256, COUNT(*) AS n, MIN(path) AS first FROM files GROUP BY sha256 HAVING n > 1"
        self.groups, copies = files.execute(f"SELECT COUNT(*), SUM(n - 1) FROM ({repeated})").fetchone()  # noqa: S608  # a constant
        self.copies = copies or 0
        files.execute("CREATE INDEX by_sha256 ON files (sha256, path)")
        for sha256, count, _ in files.execute(f"{repeated} ORDER BY n DESC, first LIMIT {GROUPS}").fetchall():
            paths = files.execute("SELECT path FROM files WHERE sha256 = ? ORDER BY path LIMIT ?", (sha256, COPIES))
            self.duplicates.append(Copies(count, tuple(path for (path,) in paths)))


def column(bytes_a_pixel: float) -> int:
    """Of `Summary.cells`; what lies outside is put into the outermost."""
    low, high = DECADES
    place = math.floor((math.log10(bytes_a_pixel) - low) * CELLS_A_DECADE)
    return min(max(place, 0), (high - low) * CELLS_A_DECADE - 1)


def _luck(path: str) -> float:
    """The same for the same path, and as good as random."""
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=6).digest()) / 2**48
