"""Ridge regression within groups, against the normal equations."""

import numpy as np
import pytest

from training.data.ratings import Floats
from training.ridge import FOLDS, Samples, regress, ridge, stratified_folds


def slow_ridge(samples: Samples, share: Floats, penalty: float) -> Floats:
    """The normal equations, with an indicator column a group that is not penalised."""
    design, groups = samples.design, samples.groups
    names = sorted(set(groups.tolist()))
    scale = np.sqrt(np.mean([design[groups == g].var(axis=0) for g in names], axis=0)) / share
    x = np.concatenate([design / scale, np.stack([groups == g for g in names], axis=1)], axis=1)
    weight = np.array([len(groups) / ((groups == g).sum() * len(names)) for g in groups])
    penalties = np.diag([penalty * len(groups)] * design.shape[1] + [0.0] * len(names))
    moved = np.concatenate([samples.invariance * samples.change / scale, np.zeros((len(design), len(names)))], axis=1)
    gram = x.T @ (weight[:, None] * x) + moved.T @ moved + penalties
    return np.linalg.solve(gram, x.T @ (weight * samples.target))[: design.shape[1]] / scale


def random_samples(features: int, invariance: float) -> Samples:
    rng = np.random.default_rng(0)
    groups = np.array(["a"] * 10 + ["b"] * 30 + ["c"] * 20)
    design = rng.normal(size=(60, features)) * rng.uniform(0.1, 10, features)
    target = rng.normal(size=60) + 5.0 * (groups == "b")
    return Samples(design, target, groups, rng.normal(size=(60, features)), invariance)


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("features", [4, 80])
@pytest.mark.parametrize("invariance", [0.0, 0.5])
def test_against_the_normal_equations(penalty: float, features: int, invariance: float) -> None:
    samples = random_samples(features, invariance)
    share = np.linspace(0.2, 1.0, features)
    found = ridge(samples, share, [penalty])[0]
    assert found == pytest.approx(slow_ridge(samples, share, penalty), rel=1e-5, abs=1e-8)


def test_columns_as_they_are() -> None:
    samples = random_samples(4, 0.5)
    scale = np.sqrt(np.mean([samples.design[samples.groups == g].var(axis=0) for g in "abc"], axis=0))
    found = ridge(samples, None, [0.1])[0]
    assert found == pytest.approx(slow_ridge(samples, scale, 0.1), rel=1e-5, abs=1e-8)


def test_invariance_makes_the_change_matter_less() -> None:
    effects = []
    for invariance in (0.0, 0.5, 10.0):
        samples = random_samples(4, invariance)
        weights = ridge(samples, np.ones(4), [0.01])[0]
        effects.append(np.std(samples.change @ weights))
    assert effects[0] > effects[1] > 3 * effects[2]


def test_predictions_are_on_one_scale_whatever_penalty_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = random_samples(6, 0.0)
    directions = []
    for penalty in (1e-4, 1.0, 1e4):
        monkeypatch.setattr("training.ridge.PENALTIES", (penalty,))
        weight, chosen = regress(samples, np.ones(6), seed=0)
        assert chosen == penalty
        predicted = samples.design @ weight
        assert np.mean([predicted[samples.groups == g].var() for g in "abc"]) == pytest.approx(1.0)
        directions.append(weight / np.linalg.norm(weight))
    assert directions[0] @ directions[2] < 0.9999  # the penalties did differ


def test_rounding_noise_is_not_scaled_up_to_a_feature() -> None:
    samples = random_samples(4, 0.0)
    noise = 1e-7 * np.random.default_rng(1).normal(size=(60, 40))
    noisy = Samples(
        np.concatenate([samples.design, noise], axis=1), samples.target, samples.groups, np.zeros((60, 44)), 0.0
    )
    weights = ridge(noisy, np.ones(44), [0.1])[0]
    assert np.abs(noise @ weights[4:]).max() < 1e-5
    assert weights[:4] == pytest.approx(ridge(samples, np.ones(4), [0.1])[0], rel=1e-4)


def test_folds_spread_every_group_evenly() -> None:
    groups = np.array(["a"] * 23 + ["b"] * 10)
    folds = stratified_folds(groups, FOLDS, seed=0)
    assert np.bincount(folds[:23]).tolist() == [5, 5, 5, 4, 4]
    assert np.bincount(folds[23:]).tolist() == [2, 2, 2, 2, 2]
    assert not np.array_equal(folds, stratified_folds(groups, FOLDS, seed=1))


def test_offsets_between_groups_change_nothing() -> None:
    """Groups may differ in every feature and in their scale of ratings: only what varies within them counts."""
    rng = np.random.default_rng(0)
    groups = np.array(["a", "b"] * 40)
    design, target = rng.normal(size=(80, 5)), rng.normal(size=80)
    moved = design + np.where(groups == "a", 10.0, -30.0)[:, None]
    nothing = np.zeros_like(design)
    weights = ridge(Samples(design, target, groups, nothing, 0.0), np.ones(5), [0.1])[0]
    again = ridge(Samples(moved, target + 7.0 * (groups == "a"), groups, nothing, 0.0), np.ones(5), [0.1])[0]
    assert again == pytest.approx(weights, rel=1e-6)
