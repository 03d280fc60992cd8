"""The readout: from pooled features to cells, nested cross-validation, calibration."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from training.data.ratings import Floats, standardise_within
from training.fit import FittedReadout, apply_calibration, calibrate, fit_weights, load_readout, save_readout
from training.metrics import Scale, pcc
from training.models.backbone import Features
from training.models.computed import Computed
from training.models.readout import CLIP, CODE_LENGTH, CODING_RATE, PYRAMID, TERMS, Calibration, Kind, Layers, Readout
from training.ridge import FOLDS, stratified_folds

# What a readout of learned features does not look at.
NOTHING = Computed(torch.zeros(0))


def patches(images: int, length: int, features: int, seed: int) -> torch.Tensor:
    return torch.randn(images, length, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fit_on(
    f: torch.Tensor,
    scores: Floats,
    groups: npt.NDArray[np.str_],
    grey: torch.Tensor | None = None,
    *,
    kind: Kind = "quadratic",
    scale: Scale | None = None,
    similar: bool = False,
) -> FittedReadout:
    """Fit on patch features [N, L, F] that come from nowhere."""
    mean, deviation = f.mean(dim=(0, 1)), f.std(dim=(0, 1))
    readout = Readout((PYRAMID,), mean, deviation, torch.zeros(TERMS[kind] * f.shape[2]), 0.0, kind)
    coloured, grey_design = (
        readout.design(NOTHING, Features((each.float(),), (), (1, f.shape[1]))).double().mean(dim=1).numpy()
        for each in (f, f if grey is None else grey)
    )
    scale = scale or (float(scores.min()), float(scores.max()))
    return fit_weights(readout, (f.shape[2],), coloured, grey_design, scores, groups, scale, similar=similar)


def cells(readout: Readout, f: torch.Tensor) -> torch.Tensor:
    return readout(NOTHING, Features((f,), (), (1, f.shape[1])))


def test_a_signal_is_found_and_its_readout_gives_the_same_scores_patch_by_patch() -> None:
    f = patches(150, 9, 6, seed=0) + patches(150, 1, 6, seed=1)
    groups = np.array(["a", "b", "c"] * 50)
    complexity = f[:, :, 0].mean(dim=1).numpy() + 0.3 * f[:, :, 1].square().mean(dim=1).numpy()
    scores = complexity * np.where(groups == "a", 3.0, 20.0) + np.where(groups == "b", 40.0, 30.0)
    fitted = fit_on(f, scores, groups)
    assert fitted.quality.mean["pcc"].value > 0.98
    assert fitted.out_of_fold.min() >= 0
    assert fitted.out_of_fold.max() <= 1
    found = cells(fitted.readout, f.float())
    assert found.shape == (150, 9)
    z = standardise_within(found.mean(dim=1).double().numpy(), groups)
    assert np.corrcoef(z, standardise_within(scores, groups))[0, 1] > 0.98


def test_the_folds_predict_on_one_scale() -> None:
    """Each fold has weights of its own; were their offsets to differ, correlation over all folds would suffer."""
    groups = np.array(["all"] * 200)
    folds = stratified_folds(groups, FOLDS, 0)
    lost = []
    for seed in (7, 17, 27, 37):
        f = patches(200, 4, 150, seed) + patches(200, 1, 150, seed + 1)
        scores = 50 + 5 * f[:, :, :3].mean(dim=(1, 2)).numpy()
        fitted = fit_on(f, scores, groups)
        within = [pcc(fitted.out_of_fold[folds == k], scores[folds == k]) for k in range(FOLDS)]
        lost.append(np.mean(within) - fitted.quality.mean["pcc"].value)
    assert np.mean(lost) < 0.03


@pytest.mark.parametrize("similar", [False, True])
def test_noise_is_not_mistaken_for_a_signal(similar: bool) -> None:
    """Nested cross-validation owes noise a correlation of about zero, however many features there are."""
    values = []
    for seed in range(6):
        f = patches(90, 4, 120, seed=seed)
        scores = np.random.default_rng(seed).uniform(0, 100, 90)
        fitted = fit_on(f, scores, np.array(["a", "b", "c"] * 30), similar=similar)
        values.append(fitted.quality.mean["pcc"].value)
    assert abs(np.mean(values)) < 0.15


def test_similarity_sees_what_depends_on_what_else_is_there() -> None:
    """A feature that counts for more where another one is strong: no sum over patches of one picture can say so."""
    of_picture = patches(300, 1, 2, seed=1)
    f = 0.1 * patches(300, 4, 2, seed=0) + of_picture
    scores = (of_picture[:, 0, 0] * of_picture[:, 0, 1]).numpy() * 10 + 50
    groups = np.array(["a", "b", "c"] * 100)
    alone, similar = (fit_on(f, scores, groups, kind="linear", similar=similar) for similar in (False, True))
    assert alone.quality.mean["pcc"].value < 0.3
    assert similar.quality.mean["pcc"].value > 0.8
    found = cells(similar.readout, f.float())
    assert np.corrcoef(found.mean(dim=1), scores)[0, 1] > 0.8
    own = (f.float() - similar.readout.mean) / similar.readout.scale @ similar.readout.pattern
    assert torch.allclose(similar.readout.pattern, alone.readout.weight), "the map is that of a readout without"
    assert torch.allclose(found - own, (found - own).mean(dim=1, keepdim=True).expand_as(own), atol=1e-4)


@pytest.mark.parametrize(
    ("layers", "drawn"),
    [
        ((CODE_LENGTH, CODING_RATE, PYRAMID), (True, False, False)),
        ((CODING_RATE, 0, PYRAMID), (False, True, True)),
        ((PYRAMID, 0, CODE_LENGTH), (False, False, True)),
    ],
)
def test_a_map_beside_similarity_is_drawn_from_what_patches_show_by_themselves(
    layers: Layers, drawn: tuple[bool, ...]
) -> None:
    rng = np.random.default_rng(0)
    design = rng.normal(size=(120, 2 * 6))
    scores = 50 + 3 * design.sum(axis=1)
    readout = Readout(layers, torch.zeros(6), torch.ones(6), torch.zeros(12), 0.0, "variety")
    groups = np.array(["a", "b", "c"] * 40)
    fitted = fit_weights(readout, (1, 2, 3), design, design, scores, groups, (0, 100), similar=True).readout
    expected = np.tile(np.repeat(drawn, (1, 2, 3)), 2)
    assert ((fitted.pattern != 0).numpy() == expected).all()
    assert (fitted.weight != 0).all(), "what the score is made of is another matter"


def test_similarity_to_grey_copies_makes_them_score_alike() -> None:
    """Two features tell the same, one of them gone in a grey copy."""
    f = 0.1 * patches(150, 4, 2, seed=0) + patches(150, 1, 1, seed=1)
    grey = f.clone()
    grey[:, :, 1] = 0
    scores = 50 + 20 * f[:, :, 0].mean(dim=1).numpy()
    changes = []
    for copies in (grey, f):
        readout = fit_on(f, scores, np.array(["a", "b", "c"] * 50), copies, kind="linear", similar=True).readout
        changes.append((cells(readout, grey.float()) - cells(readout, f.float())).mean(dim=1).std())
    assert changes[0] < 0.6 * changes[1]


def test_what_only_colour_tells_counts_less() -> None:
    """Two features tell the same, one of them gone in a grey copy: the fit leans on the other."""
    f = patches(150, 9, 1, seed=0).repeat(1, 1, 2) + patches(150, 1, 1, seed=1)
    grey = f.clone()
    grey[:, :, 1] = 0
    scores = 50 + 20 * f[:, :, 0].mean(dim=1).numpy()
    groups = np.array(["a", "b", "c"] * 50)
    fitted = fit_on(f, scores, groups, grey)
    stays, goes = fitted.readout.weight[:2].tolist()
    assert stays > 1.5 * goes
    assert fitted.quality.mean["pcc"].value > 0.95


def test_what_no_rated_picture_shows_cannot_carry_the_score_away() -> None:
    f = patches(150, 9, 6, seed=0) + patches(150, 1, 6, seed=1)
    scores = 50 + 20 * f[:, :, 0].mean(dim=1).numpy()
    fitted = fit_on(f, scores, np.array(["a", "b", "c"] * 50))
    far, farther = (cells(fitted.readout, torch.full((1, 9, 6), value)).mean() for value in (20.0, 2000.0))
    assert far == farther
    assert far.abs() < fitted.readout.weight.abs().sum() * CLIP**2 + fitted.readout.bias.abs()


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -1.0), (2.0, 0.3)])
def test_calibration_finds_the_curve(slope: float, intercept: float) -> None:
    raw = np.linspace(-2, 2, 200)
    found = calibrate(raw, apply_calibration(raw, Calibration(slope, intercept)))
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept), abs=0.02)


def test_calibration_never_turns_the_order_around() -> None:
    raw = np.linspace(-2, 2, 50)
    assert calibrate(raw, np.linspace(1, 0, 50)).slope > 0


def test_a_linear_readout_is_linear() -> None:
    """It finds what is linear in the features, and is blind to their squares."""
    f = patches(150, 9, 6, seed=0) + patches(150, 1, 6, seed=1)
    groups = np.array(["a", "b", "c"] * 50)
    found = {}
    for name, signal in (("level", f[:, :, 0].mean(dim=1)), ("energy", f[:, :, 1].square().mean(dim=1))):
        for kind in ("linear", "quadratic"):
            fitted = fit_on(f, 20 * signal.numpy(), groups, kind=kind)
            assert len(fitted.readout.weight) == TERMS[kind] * 6
            found[name, kind] = fitted.quality.mean["pcc"].value
    assert found["level", "linear"] > 0.98
    assert found["energy", "linear"] < 0.3
    assert found["energy", "quadratic"] > 0.9
    z = torch.randn(2, 4, 6)
    fitted = fit_on(f, 20 * f[:, :, 0].mean(dim=1).numpy(), groups, kind="linear")
    fitted.readout.mean.zero_()
    fitted.readout.scale.fill_(1e3)  # far from where features are clipped
    assert torch.allclose(cells(fitted.readout, 2 * z), 2 * cells(fitted.readout, z) - fitted.readout.bias, atol=1e-5)


def test_a_readout_of_one_kind_refuses_the_weights_of_the_other() -> None:
    with pytest.raises(ValueError, match="a linear readout of 3 features cannot have 6 weights"):
        Readout((PYRAMID,), torch.zeros(3), torch.ones(3), torch.zeros(6), 0.0, "linear")


@pytest.mark.parametrize("similar", [False, True])
@pytest.mark.parametrize("kind", TERMS)
def test_a_readout_survives_its_file(kind: Kind, similar: bool, tmp_path: Path) -> None:
    f = patches(60, 4, 5, seed=0)
    fitted = fit_on(f, 50 + 5 * f[:, :, 0].mean(dim=1).numpy(), np.array(["all"] * 60), kind=kind, similar=similar)
    assert (fitted.readout.similarity is not None) == similar
    save_readout(fitted.readout, fitted.calibration, tmp_path / "readout.pt")
    readout, calibration = load_readout(tmp_path / "readout.pt")
    assert (readout.kind, readout.layers, calibration) == (kind, (PYRAMID,), fitted.calibration)
    assert torch.equal(cells(readout, f.float()), cells(fitted.readout, f.float()))


def test_a_file_from_before_there_were_kinds_holds_a_quadratic_readout(tmp_path: Path) -> None:
    """The layout that runs begun with the earlier code leave."""
    state = {"mean": torch.zeros(3), "scale": torch.ones(3), "weight": torch.arange(6.0), "bias": torch.tensor(0.5)}
    content = {"layers": [PYRAMID], "state": state, "calibration": [2.0, -1.0]}
    torch.save(content, tmp_path / "readout.pt")
    readout, calibration = load_readout(tmp_path / "readout.pt")
    assert (readout.kind, calibration) == ("quadratic", Calibration(2.0, -1.0))
    f = torch.tensor([[[1.0, -2.0, 3.0]]])
    assert cells(readout, f).item() == 0 - 2 + 6 + 3 * 1 + 4 * 4 + 5 * 9 + 0.5


def test_ratings_from_0_to_1_in_one_group_are_calibrated_as_those_from_0_to_100() -> None:
    f = patches(150, 9, 6, seed=0) + patches(150, 1, 6, seed=1)
    one = np.array(["all"] * 150)
    scores = np.clip(0.5 + 0.2 * f[:, :, 0].mean(dim=1).numpy(), 0, 1)
    unit, hundred = fit_on(f, scores, one, scale=(0, 1)), fit_on(f, 100 * scores, one, scale=(0, 100))
    assert unit.out_of_fold == pytest.approx(hundred.out_of_fold, abs=1e-6)
    assert unit.quality.mean["rmse"].value < 0.05
    assert unit.out_of_fold == pytest.approx(scores, abs=0.15)


def test_a_scale_that_cannot_be_is_refused() -> None:
    f = patches(60, 4, 5, seed=0)
    with pytest.raises(ValueError, match="outside the scale"):
        fit_on(f, 50 + 5 * f[:, :, 0].mean(dim=1).numpy(), np.array(["all"] * 60), scale=(0, 1))
