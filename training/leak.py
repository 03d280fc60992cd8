"""Content leak: how well a linear probe tells from the frozen features what a picture shows.

Complexity is about how much there is, not about what it is. A representation that names the class of
a picture has learned more than its task; the less it does so at the same agreement with ratings, the
purer it is. The probe is a multinomial logistic regression on standardised features.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from clicv2.contract import Figure
from training.data.images import ImageSource, find_images
from training.data.ratings import Floats
from training.metrics import bootstrap_mean
from training.progress import show_progress
from training.ridge import stratified_folds

FOLDS = 5
# Penalty on the squared weights, as a share of the mean loss.
PENALTY = 1e-3
ITERATIONS = 100
IMAGES = 4_000


@dataclass(frozen=True, slots=True)
class Labelled:
    """Images whose class is known.

    Attributes:
        sources: where each image's bytes lie.
        labels: [N] names of classes.
    """

    sources: tuple[ImageSource, ...]
    labels: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True, slots=True)
class Leak:
    """What a probe makes of the features.

    Attributes:
        accuracy: cross-validated share of images whose class it names, top 1.
        chance: the share that always naming the most frequent class would get.
        classes, images: how many.
    """

    accuracy: Figure
    chance: float
    classes: int
    images: int


def load_labelled(manifest: Path, images: Sequence[Path], *, limit: int = IMAGES, seed: int = 0) -> Labelled:
    """Images of a manifest (CSV with name, label and, if names repeat, shard) that have a label.

    Args:
        images: folders or tar shards with the images.
        limit: at most this many, drawn at random; classes of fewer than `FOLDS` images are then left out.

    Raises ValueError: columns are missing, an image is not there, or fewer than two classes remain.
    """
    with manifest.open(newline="") as stream:
        reader = csv.DictReader(stream)
        if missing := {"name", "label"} - set(reader.fieldnames or ()):
            raise ValueError(f"{manifest} has no column {', '.join(sorted(missing))} (expected [shard,]name,label)")
        rows = [(row.get("shard") or "", row["name"], row["label"]) for row in reader if row["label"]]
    drawn = np.random.default_rng(seed).permutation(len(rows))[:limit]
    rows = [rows[i] for i in sorted(drawn.tolist())]
    large = {label for label, count in Counter(label for _, _, label in rows).items() if count >= FOLDS}
    if len(large) < 2:
        raise ValueError(
            f"{manifest}: among {len(rows)} labelled images only {len(large)} classes have {FOLDS} or more"
        )
    found = {(shard, source.name): source for source in find_images(images) for shard in {source.file.name, ""}}
    sources, labels = [], []
    for shard, name, label in rows:
        if label not in large:
            continue
        if (source := found.get((shard, name))) is None:
            raise ValueError(f"{manifest}: no image {name!r} of {shard or 'any shard'} in {[str(p) for p in images]}")
        sources.append(source)
        labels.append(label)
    return Labelled(tuple(sources), np.array(labels, dtype=np.str_))


def measure_leak(features: Floats, labels: npt.NDArray[np.str_], seed: int = 0) -> Leak:
    """Probe any features [N, F] for the classes [N], in stratified cross-validation.

    Every class needs `FOLDS` images, so that each fold's probe has seen it.
    """
    names, classes = np.unique(labels, return_inverse=True)
    folds = stratified_folds(labels, FOLDS, seed)
    correct = np.empty(len(labels))
    for fold in show_progress(range(FOLDS), "probes"):
        inside = folds != fold
        named = probe(features[inside], classes[inside], features[~inside], len(names))
        correct[~inside] = named == classes[~inside]
    return Leak(
        accuracy=bootstrap_mean(correct, seed=seed),
        chance=float(np.bincount(classes).max() / len(classes)),
        classes=len(names),
        images=len(labels),
    )


def probe(known: Floats, classes: npt.NDArray[np.int64], asked: Floats, count: int) -> npt.NDArray[np.int64]:
    """Fit a multinomial logistic regression and name the classes of other features.

    Args:
        known: [N, F]; classes: [N] of 0 to `count` - 1.
        asked: [M, F], standardised by what is known alone.

    Returns: [M]. The loss is convex and starts from zero weights: nothing is drawn at random.
    """
    mean, spread = known.mean(axis=0), known.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    x = torch.from_numpy(np.asarray((known - mean) / spread, dtype=np.float32))
    y = torch.from_numpy(classes)
    weight = torch.zeros(x.shape[1], count, requires_grad=True)
    bias = torch.zeros(count, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weight + bias, y) + PENALTY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]  # likewise
    with torch.inference_mode():
        logits = torch.from_numpy(np.asarray((asked - mean) / spread, dtype=np.float32)) @ weight + bias
    return np.asarray(logits.argmax(dim=1).numpy())
