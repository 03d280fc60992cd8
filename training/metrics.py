"""Agreement with human ratings within each group, its mean over the groups, and bootstrap intervals.

PCC and SRCC compare any prediction with the ratings. RMSE compares only what claims to be on the
ratings' own scale, the calibrated score; so it is measured when that scale is given, and a label-free
output or a classical measure has none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from clicv2.contract import Figure
from training.data.ratings import Floats

BOOTSTRAP_SAMPLES = 1_000
CONFIDENCE = 0.95
Scale = tuple[float, float]


def pcc(predicted: Floats, rated: Floats) -> float:
    """Pearson's linear correlation; 0 where either side is constant, for then it says nothing."""
    return float(_pcc(predicted, rated))


def srcc(predicted: Floats, rated: Floats) -> float:
    """Spearman's rank correlation, ties at their mean rank."""
    return float(_srcc(predicted, rated))


def rmse(predicted: Floats, rated: Floats) -> float:
    """Root of the mean squared error; both on one scale."""
    return float(_rmse(predicted, rated))


# A measure takes [..., n] twice and gives [...]: all resamples of a group at once.
Measure = Callable[[Floats, Floats], Floats]


def _pcc(predicted: Floats, rated: Floats) -> Floats:
    p = predicted - predicted.mean(axis=-1, keepdims=True)
    r = rated - rated.mean(axis=-1, keepdims=True)
    norm = np.sqrt((p * p).sum(axis=-1) * (r * r).sum(axis=-1))
    # Not norm > 0: the mean of equal numbers may differ from them in the last bit.
    varies = (np.ptp(predicted, axis=-1) > 0) & (np.ptp(rated, axis=-1) > 0) & (norm > 0)
    return np.asarray(np.where(varies, (p * r).sum(axis=-1) / np.where(varies, norm, 1.0), 0.0))


def _srcc(predicted: Floats, rated: Floats) -> Floats:
    return _pcc(stats.rankdata(predicted, axis=-1), stats.rankdata(rated, axis=-1))


def _rmse(predicted: Floats, rated: Floats) -> Floats:
    return np.asarray(np.sqrt(np.mean((predicted - rated) ** 2, axis=-1)))


CORRELATIONS: Mapping[str, Measure] = {"pcc": _pcc, "srcc": _srcc}
ON_SCALE: Mapping[str, Measure] = {**CORRELATIONS, "rmse": _rmse}


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well predictions agree with ratings.

    Attributes:
        groups: measure -> group -> figure; the measures are "pcc", "srcc" and, of what is on the
            ratings' scale, "rmse" (0 to 1: a share of the scale).
        mean: measure -> figure of the mean over the groups, each group counting once.
    """

    groups: Mapping[str, Mapping[str, Figure]]
    mean: Mapping[str, Figure]


def agreement(
    predicted: Floats,
    rated: Floats,
    groups: npt.NDArray[np.str_],
    *,
    scale: Scale | None = None,
    seed: int = 0,
    samples: int = BOOTSTRAP_SAMPLES,
) -> Agreement:
    """Measures with percentile-bootstrap intervals; images are resampled within their group.

    Args:
        predicted, rated: [N]; groups: [N] names.
        scale: lowest and highest possible rating, which mean 0 and 1 to `predicted`: RMSE as well.

    Raises ValueError when a rating lies outside the scale.
    """
    measures = CORRELATIONS if scale is None else ON_SCALE
    if scale is not None:
        rated = to_unit(rated, scale)
    rng = np.random.default_rng(seed)
    names = sorted(set(groups.tolist()))
    estimate: dict[str, list[float]] = {m: [] for m in measures}
    resampled: dict[str, list[Floats]] = {m: [] for m in measures}
    for name in names:
        p, r = predicted[groups == name], rated[groups == name]
        draws = rng.integers(0, len(p), (samples, len(p)))
        for measure, function in measures.items():
            estimate[measure].append(float(function(p, r)))
            resampled[measure].append(function(p[draws], r[draws]))
    return Agreement(
        groups={
            m: {
                name: _figure(value, draws) for name, value, draws in zip(names, estimate[m], resampled[m], strict=True)
            }
            for m in measures
        },
        mean={m: _figure(float(np.mean(estimate[m])), np.mean(resampled[m], axis=0)) for m in measures},
    )


def to_unit(rated: Floats, scale: Scale) -> Floats:
    """Ratings of `scale` (lowest, highest possible) to 0 to 1. Raises ValueError when one lies outside."""
    low, high = scale
    if not low < high:
        raise ValueError(f"a scale rises from its lowest to its highest rating, got {low} to {high}")
    if rated.min() < low or rated.max() > high:
        raise ValueError(
            f"ratings of {rated.min():g} to {rated.max():g} lie outside the scale of {low:g} to {high:g}: give theirs"
        )
    return np.asarray((rated - low) / (high - low))


def bootstrap_mean(values: Floats, *, seed: int = 0, samples: int = BOOTSTRAP_SAMPLES) -> Figure:
    """The mean of [N] values with its percentile-bootstrap interval."""
    draws = np.random.default_rng(seed).integers(0, len(values), (samples, len(values)))
    return _figure(float(values.mean()), values[draws].mean(axis=1))


def _figure(value: float, draws: Floats) -> Figure:
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Figure(value, float(low), float(high))
