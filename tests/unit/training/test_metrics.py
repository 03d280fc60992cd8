"""PCC, SRCC and their intervals, against SciPy and against what must hold."""

import numpy as np
import pytest
from scipy import stats

from training.metrics import agreement, pcc, srcc


@pytest.mark.parametrize("seed", range(5))
def test_against_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=50).round(1)  # rounded: with ties
    b = a + rng.normal(size=50)
    assert pcc(a, b) == pytest.approx(stats.pearsonr(a, b).statistic)
    assert srcc(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_a_constant_prediction_agrees_with_nothing() -> None:
    assert pcc(np.ones(5), np.arange(5.0)) == 0.0
    assert srcc(np.ones(5), np.arange(5.0)) == 0.0


def test_groups_count_once_each_whatever_their_size_and_scale() -> None:
    rated = np.concatenate([np.arange(10.0), np.arange(100.0) * 1000])
    predicted = np.concatenate([np.arange(10.0), -np.arange(100.0)])
    groups = np.array(["small"] * 10 + ["large"] * 100)
    result = agreement(predicted, rated, groups)
    assert result.groups["pcc"]["small"].value == pytest.approx(1.0)
    assert result.groups["pcc"]["large"].value == pytest.approx(-1.0)
    assert result.mean["pcc"].value == pytest.approx(0.0)


def test_the_interval_covers_the_estimate_and_shrinks_with_more_images() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for count in (30, 1000):
        rated = rng.normal(size=count)
        predicted = rated + rng.normal(size=count)
        figure = agreement(predicted, rated, np.array(["a"] * count)).mean["pcc"]
        assert figure.low < figure.value < figure.high
        widths.append(figure.high - figure.low)
        # Fisher's transformation gives the textbook interval
        z, half = np.arctanh(figure.value), 1.96 / np.sqrt(count - 3)
        assert (figure.low, figure.high) == pytest.approx(
            np.tanh([z - half, z + half]), abs=0.12 if count < 100 else 0.02
        )
    assert widths[1] < widths[0] / 3


def test_a_seed_determines_the_interval() -> None:
    rng = np.random.default_rng(1)
    a, b, groups = rng.normal(size=40), rng.normal(size=40), np.array(["a", "b"] * 20)
    assert agreement(a, b, groups, seed=1) == agreement(a, b, groups, seed=1)
    assert agreement(a, b, groups, seed=1) != agreement(a, b, groups, seed=2)
