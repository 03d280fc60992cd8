"""The readout: ridge regression within groups, nested cross-validation, calibration."""

import numpy as np
import pytest
import torch

from training.data.ratings import Floats, standardise_within
from training.fit import (
    FOLDS,
    Moments,
    apply_calibration,
    calibrate,
    fit_on_moments,
    ridge,
    stratified_folds,
)
from training.metrics import pcc
from training.models.encoder import Features
from training.models.readout import PYRAMID, Calibration


def slow_ridge(design: Floats, target: Floats, groups: np.ndarray, penalty: float) -> Floats:
    """The normal equations, with an indicator column a group that is not penalised."""
    names = sorted(set(groups.tolist()))
    scale = np.sqrt(np.mean([design[groups == g].var(axis=0) for g in names], axis=0)) + 1e-9
    x = np.concatenate([design / scale, np.stack([groups == g for g in names], axis=1)], axis=1)
    weight = np.array([len(groups) / ((groups == g).sum() * len(names)) for g in groups])
    penalties = np.diag([penalty * len(groups)] * design.shape[1] + [0.0] * len(names))
    return np.linalg.solve(x.T @ (weight[:, None] * x) + penalties, x.T @ (weight * target))[: design.shape[1]] / scale


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("features", [4, 80])
def test_ridge_against_the_normal_equations(penalty: float, features: int) -> None:
    rng = np.random.default_rng(0)
    groups = np.array(["a"] * 10 + ["b"] * 30 + ["c"] * 20)
    design = rng.normal(size=(60, features)) * rng.uniform(0.1, 10, features)
    target = rng.normal(size=60) + 5.0 * (groups == "b")
    found = ridge(design, target, groups, np.ones(features), [penalty])[0]
    assert found == pytest.approx(slow_ridge(design, target, groups, penalty), rel=1e-6, abs=1e-9)


def test_folds_spread_every_group_evenly() -> None:
    groups = np.array(["a"] * 23 + ["b"] * 10)
    folds = stratified_folds(groups, FOLDS, seed=0)
    assert np.bincount(folds[:23]).tolist() == [5, 5, 5, 4, 4]
    assert np.bincount(folds[23:]).tolist() == [2, 2, 2, 2, 2]
    assert not np.array_equal(folds, stratified_folds(groups, FOLDS, seed=1))


def patches(images: int, length: int, features: int, seed: int) -> torch.Tensor:
    return torch.randn(images, length, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments_of(f: torch.Tensor) -> Moments:
    return Moments(f.mean(dim=1).numpy(), f.square().mean(dim=1).numpy(), (f.shape[2],))


def test_a_signal_is_found_and_its_readout_gives_the_same_scores_patch_by_patch() -> None:
    f = patches(150, 9, 6, seed=0) + patches(150, 1, 6, seed=1)
    groups = np.array(["a", "b", "c"] * 50)
    complexity = f[:, :, 0].mean(dim=1).numpy() + 0.3 * f[:, :, 1].square().mean(dim=1).numpy()
    scores = complexity * np.where(groups == "a", 3.0, 20.0) + np.where(groups == "b", 40.0, 30.0)
    fitted = fit_on_moments(moments_of(f), scores, groups, (PYRAMID,), (0.0, 100.0))
    assert fitted.quality.mean["pcc"].value > 0.98
    assert fitted.out_of_fold.min() >= 0
    assert fitted.out_of_fold.max() <= 1
    cells = fitted.readout(torch.zeros(0), Features(f.float(), (), (3, 3)))
    assert cells.shape == (150, 9)
    z = standardise_within(cells.mean(dim=1).double().numpy(), groups)
    assert np.corrcoef(z, standardise_within(scores, groups))[0, 1] > 0.98


def test_the_folds_predict_on_one_scale() -> None:
    """Each fold has weights of its own; were their offsets to differ, correlation over all folds would suffer."""
    groups = np.array(["all"] * 200)
    folds = stratified_folds(groups, FOLDS, 0)
    lost = []
    for seed in (7, 17, 27, 37):
        f = patches(200, 4, 150, seed) + patches(200, 1, 150, seed + 1)
        scores = 50 + 5 * f[:, :, :3].mean(dim=(1, 2)).numpy()
        fitted = fit_on_moments(moments_of(f), scores, groups, (PYRAMID,), (0.0, 100.0))
        within = [pcc(fitted.out_of_fold[folds == k], scores[folds == k]) for k in range(FOLDS)]
        lost.append(np.mean(within) - fitted.quality.mean["pcc"].value)
    assert np.mean(lost) < 0.03


def test_noise_is_not_mistaken_for_a_signal() -> None:
    """Nested cross-validation owes noise a correlation of about zero, however many features there are."""
    values = []
    for seed in range(6):
        f = patches(90, 4, 120, seed=seed)
        scores = np.random.default_rng(seed).uniform(0, 100, 90)
        fitted = fit_on_moments(moments_of(f), scores, np.array(["a", "b", "c"] * 30), (PYRAMID,), (0.0, 100.0))
        values.append(fitted.quality.mean["pcc"].value)
    assert abs(np.mean(values)) < 0.15


def test_offsets_between_groups_change_nothing() -> None:
    """Groups may differ in every feature and in their scale of ratings: only what varies within them counts."""
    rng = np.random.default_rng(0)
    groups = np.array(["a", "b"] * 40)
    design, target = rng.normal(size=(80, 5)), rng.normal(size=80)
    moved = design + np.where(groups == "a", 10.0, -30.0)[:, None]
    weights = ridge(design, target, groups, np.ones(5), [0.1])[0]
    assert ridge(moved, target + 7.0 * (groups == "a"), groups, np.ones(5), [0.1])[0] == pytest.approx(
        weights, rel=1e-6
    )


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -1.0), (2.0, 0.3)])
def test_calibration_finds_the_curve(slope: float, intercept: float) -> None:
    raw = np.linspace(-2, 2, 200)
    found = calibrate(raw, apply_calibration(raw, Calibration(slope, intercept)))
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept), abs=0.02)


def test_calibration_never_turns_the_order_around() -> None:
    raw = np.linspace(-2, 2, 50)
    assert calibrate(raw, np.linspace(1, 0, 50)).slope > 0
