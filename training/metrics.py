"""Agreement with human ratings: PCC and SRCC within each group, their mean, and bootstrap intervals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from clicv2.contract import Figure
from training.data.ratings import Floats

BOOTSTRAP_SAMPLES = 1_000
CONFIDENCE = 0.95


def pcc(predicted: Floats, rated: Floats) -> float:
    """Pearson's linear correlation; 0 where either side is constant, for then it says nothing."""
    p, r = predicted - predicted.mean(), rated - rated.mean()
    norm = float(np.sqrt((p @ p) * (r @ r)))
    return float(p @ r) / norm if norm > 0 else 0.0


def srcc(predicted: Floats, rated: Floats) -> float:
    """Spearman's rank correlation, ties at their mean rank."""
    return pcc(stats.rankdata(predicted), stats.rankdata(rated))


MEASURES: Mapping[str, Callable[[Floats, Floats], float]] = {"pcc": pcc, "srcc": srcc}


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well predictions agree with ratings.

    Attributes:
        groups: measure -> group -> figure.
        mean: measure -> figure of the mean over the groups, each group counting once.
    """

    groups: Mapping[str, Mapping[str, Figure]]
    mean: Mapping[str, Figure]


def agreement(
    predicted: Floats, rated: Floats, groups: npt.NDArray[np.str_], *, seed: int = 0, samples: int = BOOTSTRAP_SAMPLES
) -> Agreement:
    """PCC and SRCC with percentile-bootstrap intervals; images are resampled within their group.

    Args:
        predicted, rated: [N]; groups: [N] names.
    """
    rng = np.random.default_rng(seed)
    names = sorted(set(groups.tolist()))
    estimate: dict[str, list[float]] = {m: [] for m in MEASURES}
    resampled: dict[str, list[Floats]] = {m: [] for m in MEASURES}
    for name in names:
        p, r = predicted[groups == name], rated[groups == name]
        draws = rng.integers(0, len(p), (samples, len(p)))
        for measure, function in MEASURES.items():
            estimate[measure].append(function(p, r))
            resampled[measure].append(np.array([function(p[draw], r[draw]) for draw in draws]))
    return Agreement(
        groups={
            m: {
                name: _figure(value, draws) for name, value, draws in zip(names, estimate[m], resampled[m], strict=True)
            }
            for m in MEASURES
        },
        mean={m: _figure(float(np.mean(estimate[m])), np.mean(resampled[m], axis=0)) for m in MEASURES},
    )


def _figure(value: float, draws: Floats) -> Figure:
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Figure(value, float(low), float(high))
