"""Human ratings of complexity: a CSV of path, score and, optionally, group; or IC9600's own lists.

A group (a category, a study) has a scale of its own: 40 of 100 among icons is not 40 among
interiors. So scores are compared only within a group, and figures are averaged over the groups.

IC9600 (github.com/tinglyfeng/IC9600) comes with train.txt and test.txt: a line an image, its name,
two blanks, its score in [0, 1]. Its eight categories are no groups here: the same 17 people rated
all of them on one scale of 1 to 5, and the published figures are taken over all images at once.
"""

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.images import ImageSource, find_images

# Below this a correlation within the group means nothing.
SMALLEST_GROUP = 3
ONE_GROUP = "all"
# What tells IC9600's lists from CSVs, and what stands between name and score; names hold single blanks.
LIST_SUFFIX = ".txt"
LIST_SEPARATOR = "  "
LIST_SCALE = (0.0, 1.0)
TABLE_SCALE = (0.0, 100.0)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ratings:
    """Rated images, in the order of the table.

    Attributes:
        sources: where each image's bytes lie.
        scores: [N], each on the scale of its group.
        groups: [N] names.
    """

    sources: tuple[ImageSource, ...]
    scores: Floats
    groups: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.sources)

    def only(self, chosen: npt.NDArray[np.bool_]) -> "Ratings":
        """Those where `chosen` ([N]) is true."""
        return Ratings(tuple(compress(self.sources, chosen)), self.scores[chosen], self.groups[chosen])

    @property
    def group_names(self) -> list[str]:
        return sorted(set(self.groups.tolist()))


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of a table, not understood yet; `line` counts from 1."""

    line: int
    name: str
    score: str
    group: str


def load_ratings(table: Path, images: Sequence[Path]) -> Ratings:
    """Read a table of ratings and find its images by their paths inside `images` (folders or tar shards).

    Args:
        table: IC9600's layout if it ends in .txt, otherwise a CSV.

    Raises ValueError that names the line: missing columns, a line that is not name, two blanks and
    score, a score that is no number (in IC9600's layout: outside [0, 1]), an image that is not
    there or is rated twice, a group of fewer than three images or with a single score.
    """
    rows = _listed(table) if table.suffix.lower() == LIST_SUFFIX else _tabulated(table)
    by_name = {source.name: source for source in find_images(images)}
    sources, scores, groups = [], [], []
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        name = row.name.removeprefix("./")
        source = by_name.get(name)
        if source is None:
            raise ValueError(f"{table}, line {row.line}: no image {row.name!r} in {[str(p) for p in images]}")
        first = seen.setdefault((name, row.group), row.line)
        if first != row.line:  # its copies would sit on both sides of a cross-validation
            raise ValueError(f"{table}, line {row.line}: {row.name!r} is rated in line {first} already")
        sources.append(source)
        scores.append(_number(table, row))
        groups.append(row.group)
    ratings = Ratings(tuple(sources), np.array(scores), np.array(groups, dtype=np.str_))
    for group, count in Counter(groups).items():
        if count < SMALLEST_GROUP or np.ptp(ratings.scores[ratings.groups == group]) == 0:
            raise ValueError(f"{table}: group {group!r} has {count} images or one score only: nothing to correlate")
    if not sources:
        raise ValueError(f"{table} holds no ratings")
    return ratings


def usual_scale(table: Path) -> tuple[float, float]:
    """The lowest and highest possible rating of such a table, where nobody says otherwise."""
    return LIST_SCALE if table.suffix.lower() == LIST_SUFFIX else TABLE_SCALE


def _tabulated(table: Path) -> Iterator[_Row]:
    """The rows of a CSV."""
    reader = csv.DictReader(_lines(table))
    if missing := {"path", "score"} - set(reader.fieldnames or ()):
        raise ValueError(f"{table} has no column {', '.join(sorted(missing))} (expected path,score[,group])")
    for row in reader:
        yield _Row(reader.line_num, row["path"] or "", row["score"] or "", row.get("group") or ONE_GROUP)


def _listed(table: Path) -> Iterator[_Row]:
    """The lines of IC9600's layout."""
    for number, line in enumerate(_lines(table), start=1):
        name, _, score = line.strip().partition(LIST_SEPARATOR)
        if score.strip() != score or not score:
            raise ValueError(f"{table}, line {number}: {line.strip()!r} is not a name, two blanks and a score")
        row = _Row(number, name, score, ONE_GROUP)
        if not LIST_SCALE[0] <= _number(table, row) <= LIST_SCALE[1]:
            raise ValueError(f"{table}, line {number}: the score {score} is outside [0, 1]")
        yield row


def _lines(table: Path) -> list[str]:
    """The lines of a text file with their ends, without the byte-order mark that spreadsheets put before them."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            return stream.readlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is no text in UTF-8: {error}") from error


def _number(table: Path, row: _Row) -> float:
    try:
        score = float(row.score)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"{table}, line {row.line}: the score {row.score!r} is no finite number")
    return score


def standardise_within(values: Floats, groups: npt.NDArray[np.str_]) -> Floats:
    """Shift and scale values to mean 0 and standard deviation 1 within each group: [N] -> [N]."""
    result = np.empty_like(values)
    for group in set(groups.tolist()):
        chosen = groups == group
        spread = values[chosen].std()
        result[chosen] = (values[chosen] - values[chosen].mean()) / (spread if spread > 0 else 1.0)
    return result


def file_sha256(path: Path) -> str:
    """By which a model tells the ratings that it was fitted on."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
