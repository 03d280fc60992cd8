"""Human ratings of complexity: a CSV of path, score and, optionally, group.

A group (a category, a study) has a scale of its own: 40 of 100 among icons is not 40 among
interiors. So scores are compared only within a group, and figures are averaged over the groups.
"""

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.images import ImageSource, find_images

# Below this a correlation within the group means nothing.
SMALLEST_GROUP = 3
ONE_GROUP = "all"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ratings:
    """Rated images, in the order of the CSV.

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

    @property
    def group_names(self) -> list[str]:
        return sorted(set(self.groups.tolist()))


def load_ratings(table: Path, images: Sequence[Path]) -> Ratings:
    """Read a ratings CSV and find its images by their paths inside `images` (folders or tar shards).

    Raises ValueError that names the row: missing columns, a score that is no number, an image that
    is not there, a group of fewer than three images or with a single score.
    """
    by_name = {source.name: source for source in find_images(images)}
    sources, scores, groups = [], [], []
    with table.open(newline="") as stream:
        reader = csv.DictReader(stream)
        if missing := {"path", "score"} - set(reader.fieldnames or ()):
            raise ValueError(f"{table} has no column {', '.join(sorted(missing))} (expected path,score[,group])")
        for number, row in enumerate(reader, start=2):
            source = by_name.get(row["path"].removeprefix("./"))
            if source is None:
                raise ValueError(f"{table}, line {number}: no image {row['path']!r} in {[str(p) for p in images]}")
            try:
                score = float(row["score"])
            except (TypeError, ValueError):
                score = math.nan
            if not math.isfinite(score):
                raise ValueError(f"{table}, line {number}: the score {row['score']!r} is no finite number")
            sources.append(source)
            scores.append(score)
            groups.append(row.get("group") or ONE_GROUP)
    ratings = Ratings(tuple(sources), np.array(scores), np.array(groups, dtype=np.str_))
    for group, count in Counter(groups).items():
        if count < SMALLEST_GROUP or np.ptp(ratings.scores[ratings.groups == group]) == 0:
            raise ValueError(f"{table}: group {group!r} has {count} images or one score only: nothing to correlate")
    if not sources:
        raise ValueError(f"{table} holds no ratings")
    return ratings


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
