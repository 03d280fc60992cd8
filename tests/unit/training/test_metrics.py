"""PCC, SRCC, RMSE and their intervals, against SciPy and against what must hold."""

import numpy as np
import pytest
from scipy import stats

from training.metrics import CORRELATIONS, ON_SCALE, agreement, bootstrap_mean, pcc, rmse, srcc, to_unit


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
    # The mean of equal numbers differs from them in the last bit; that is no variation.
    assert pcc(np.full(7, 0.1), np.arange(7.0)) == 0.0


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


def test_rmse_by_hand() -> None:
    assert rmse(np.array([0.0, 1.0, 0.5]), np.array([0.0, 0.5, 0.0])) == pytest.approx(np.sqrt(0.5 / 3))
    assert rmse(np.arange(5.0), np.arange(5.0)) == 0.0


@pytest.mark.parametrize("measure", ON_SCALE)
def test_all_resamples_at_once_are_as_one_by_one(measure: str) -> None:
    alone = {"pcc": pcc, "srcc": srcc, "rmse": rmse}[measure]
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 20)).round(1), rng.normal(size=(30, 20)).round(1)
    a[3] = 0.1  # a resample may be constant
    assert ON_SCALE[measure](a, b) == pytest.approx([alone(x, y) for x, y in zip(a, b, strict=True)])


def test_rmse_needs_a_scale_and_is_a_share_of_it() -> None:
    rng = np.random.default_rng(0)
    rated, groups = rng.uniform(1, 5, 60), np.array(["a", "b", "c"] * 20)
    predicted = (rated - 1) / 4 + np.where(groups == "a", 0.1, 0.3)
    assert set(agreement(predicted, rated, groups).mean) == set(CORRELATIONS)
    found = agreement(predicted, rated, groups, scale=(1.0, 5.0))
    assert set(found.mean) == {"pcc", "srcc", "rmse"}
    assert {g: f.value for g, f in found.groups["rmse"].items()} == pytest.approx({"a": 0.1, "b": 0.3, "c": 0.3})
    assert found.mean["rmse"].value == pytest.approx(0.7 / 3)  # the mean of the groups, not of the pictures
    correlations = agreement(predicted, rated, groups).mean
    assert all(found.mean[m].value == pytest.approx(correlations[m].value) for m in CORRELATIONS)


def test_the_interval_of_an_rmse_is_the_textbooks() -> None:
    """Of n normal errors of deviation s, the root of the mean square varies by s / sqrt(2 n)."""
    rng = np.random.default_rng(0)
    rated = rng.uniform(0.3, 0.7, 800)
    predicted = rated + rng.normal(0, 0.05, 800)
    figure = agreement(predicted, rated, np.array(["a"] * 800), scale=(0.0, 1.0)).mean["rmse"]
    half = 1.96 * 0.05 / np.sqrt(2 * 800)
    assert figure.value == pytest.approx(0.05, rel=0.05)
    assert (figure.low, figure.high) == pytest.approx((figure.value - half, figure.value + half), abs=0.3 * half)


@pytest.mark.parametrize(
    ("scale", "complaint"), [((0.0, 50.0), "outside the scale"), ((10.0, 100.0), "outside"), ((5.0, 5.0), "rises")]
)
def test_ratings_that_do_not_fit_their_scale_are_refused(scale: tuple[float, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        to_unit(np.array([5.0, 60.0]), scale)


def test_the_ends_of_the_scale_are_0_and_1() -> None:
    assert to_unit(np.array([1.0, 3.0, 5.0]), (1.0, 5.0)).tolist() == [0.0, 0.5, 1.0]


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    values = np.random.default_rng(0).normal(3, 2, 500)
    figure = bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(500)
    assert figure.value == pytest.approx(values.mean())
    assert (figure.low, figure.high) == pytest.approx((figure.value - half, figure.value + half), abs=0.15 * half)
    assert bootstrap_mean(values, seed=1) != figure == bootstrap_mean(values)
