"""Ridge regression on ratings whose scale differs from group to group, with a change that must not matter.

Pure numpy; what the features are and where they come from is `training.fit`'s business.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.ratings import Floats
from training.metrics import pcc

FOLDS = 5
# Columns are in deviations of a feature. One that hardly moves from image to image is rounding noise,
# and scaled up to the others it would get a weight that no other computer's rounding agrees with.
SMALLEST_DEVIATION = 1e-3
PENALTIES = tuple(float(p) for p in np.logspace(-5, 2, 22))


@dataclass(frozen=True, slots=True)
class Samples:
    """What is fitted.

    Attributes:
        design: [N, F] features, each standardised over whatever it was measured on.
        target: [N].
        groups: [N] names; each has an offset of its own, and all weigh the same.
        change: [N, F] by how much something that should hardly matter moves the features.
        invariance: how little it should matter; 0 takes no heed of it.
    """

    design: Floats
    target: Floats
    groups: npt.NDArray[np.str_]
    change: Floats
    invariance: float

    def only(self, chosen: npt.NDArray[np.bool_]) -> "Samples":
        return Samples(
            self.design[chosen], self.target[chosen], self.groups[chosen], self.change[chosen], self.invariance
        )


def ridge(samples: Samples, share: Floats | None, penalties: Sequence[float]) -> list[Floats]:
    """One weight vector [F] a penalty.

    Minimises, over the images, the mean squared error within groups, plus the mean squared change
    of the prediction under `change` times `invariance` squared, plus the penalty. Columns are
    scaled to the deviation `share` ([F]) within groups before the penalty applies; None: it applies to
    them as they are. Solved in the dual, because there are more features than images.
    """
    x, y = samples.design.copy(), samples.target.copy()
    names = set(samples.groups.tolist())
    for group in names:
        chosen = samples.groups == group
        weight = np.sqrt(len(y) / (chosen.sum() * len(names)))
        x[chosen] = (x[chosen] - x[chosen].mean(axis=0)) * weight
        y[chosen] = (y[chosen] - y[chosen].mean()) * weight
    deviation = np.ones(x.shape[1]) if share is None else deviation_within(samples.design, samples.groups) / share
    count = len(y)
    if samples.invariance > 0:
        x = np.concatenate([x, samples.invariance * samples.change])
        y = np.concatenate([y, np.zeros(count)])
    x /= deviation
    values, vectors = np.linalg.eigh(x @ x.T / count)
    turned = vectors.T @ y / count
    return [x.T @ (vectors @ (turned / (values + penalty))) / deviation for penalty in penalties]


def deviation_within(columns: Floats, groups: npt.NDArray[np.str_]) -> Floats:
    """Of columns [N, F] within groups that all weigh the same, and never below what is rounding noise: [F]."""
    variances = [columns[groups == group].var(axis=0) for group in set(groups.tolist())]
    within: Floats = np.sqrt(np.mean(variances, axis=0))
    return np.maximum(within, SMALLEST_DEVIATION)


def regress(samples: Samples, share: Floats | None, seed: int) -> tuple[Floats, float]:
    """Weights [F] with a penalty chosen by cross-validation, and that penalty.

    The weights are scaled so that their predictions deviate by 1 within groups: a penalty shrinks
    them by an amount of its own, and folds that chose another one must predict on the same scale.
    """
    penalty = choose_penalty(samples, share, seed)
    weight = ridge(samples, share, [penalty])[0]
    predicted = samples.design @ weight
    deviation = np.sqrt(np.mean([predicted[samples.groups == g].var() for g in set(samples.groups.tolist())]))
    return weight / (deviation or 1.0), penalty


def choose_penalty(samples: Samples, share: Floats | None, seed: int) -> float:
    """The penalty with the highest cross-validated PCC, averaged over the groups."""
    folds = stratified_folds(samples.groups, FOLDS, seed)
    predicted = np.empty((len(PENALTIES), len(samples.target)))
    for fold in range(FOLDS):
        inside = folds != fold
        predicted[:, ~inside] = np.stack(ridge(samples.only(inside), share, PENALTIES)) @ samples.design[~inside].T
    names = set(samples.groups.tolist())
    quality = [
        np.mean([pcc(p[samples.groups == g], samples.target[samples.groups == g]) for g in names]) for p in predicted
    ]
    return PENALTIES[int(np.argmax(quality))]


def cross_validated(samples: Samples, share: Floats | None, seed: int) -> Floats:
    """Predictions [N], each by weights and a penalty in which the image had no say (nested cross-validation)."""
    folds = stratified_folds(samples.groups, FOLDS, seed)
    predicted = np.empty_like(samples.target)
    for fold in range(FOLDS):
        inside = folds != fold
        predicted[~inside] = samples.design[~inside] @ regress(samples.only(inside), share, seed + 1)[0]
    return predicted


def stratified_folds(groups: npt.NDArray[np.str_], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """A fold for each image, every group spread evenly over them: [N]."""
    rng = np.random.default_rng(seed)
    assigned = np.empty(len(groups), dtype=np.int64)
    for group in sorted(set(groups.tolist())):
        members = rng.permutation(np.flatnonzero(groups == group))
        assigned[members] = np.arange(len(members)) % folds
    return assigned
