"""Fit a readout to human ratings on frozen features, and calibrate its score to [0, 1].

Ridge regression with everything centred within its group, because a group of ratings has a scale
of its own; each group weighs the same. The penalty is chosen by cross-validation, and the quality
that is reported comes from a second cross-validation around the first (nested), so that no image
has a say in its own prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import least_squares
from torch.utils.data import DataLoader

from clicv2.spec import PreprocessSpec
from training.data.images import ImageDataset
from training.data.ratings import Floats, Ratings, standardise_within
from training.methods.protocol import Method
from training.metrics import Agreement, agreement, pcc
from training.models.readout import Calibration, Layers, Readout, select_layers
from training.progress import show_progress

FOLDS = 5
PENALTIES = tuple(float(p) for p in np.logspace(-5, 2, 22))
FILE = "readout.pt"
# Calibration targets stay off 0 and 1, which a logistic curve never reaches.
TARGET_MARGIN = 0.02


@dataclass(frozen=True, slots=True)
class Moments:
    """Features of images, pooled over their patches.

    Attributes:
        mean, square: [N, F] means over the patches of the features and of their squares.
        widths: number of features of each layer, in order; they add up to F.
    """

    mean: Floats
    square: Floats
    widths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FittedReadout:
    """A readout, its calibration, and what cross-validation says of it.

    Attributes:
        penalty: of the ridge, chosen by cross-validation on all ratings.
        out_of_fold: [N] calibrated scores, each from folds that the image was not in.
        quality: agreement of `out_of_fold` with the ratings.
    """

    readout: Readout
    calibration: Calibration
    penalty: float
    out_of_fold: Floats
    quality: Agreement

    def save(self, path: Path) -> None:
        content = {
            "layers": list(self.readout.layers),
            "state": self.readout.state_dict(),
            "calibration": [self.calibration.slope, self.calibration.intercept],
        }
        torch.save(content, path)


def load_readout(path: Path) -> tuple[Readout, Calibration]:
    """Read what `FittedReadout.save` wrote."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = content["state"]
    readout = Readout(tuple(content["layers"]), state["mean"], state["scale"], state["weight"], float(state["bias"]))
    return readout, Calibration(*content["calibration"])


def fit_readout(
    method: Method, ratings: Ratings, spec: PreprocessSpec, layers: Layers, scale: tuple[float, float], seed: int = 0
) -> FittedReadout:
    """Fit on `ratings`, whose scores run over `scale` (lowest and highest possible) within each group."""
    moments = pooled_moments(method, ImageDataset(ratings.sources, spec), layers)
    return fit_on_moments(moments, ratings.scores, ratings.groups, layers, scale, seed)


def fit_on_moments(
    moments: Moments,
    scores: Floats,
    groups: npt.NDArray[np.str_],
    layers: Layers,
    scale: tuple[float, float],
    seed: int = 0,
) -> FittedReadout:
    """`fit_readout` on features that are already pooled."""
    mean = moments.mean.mean(axis=0)  # [F] over all patches of all images
    deviation = np.sqrt(np.maximum(moments.square.mean(axis=0) - mean**2, 1e-12))
    # Means over the patches of the standardised features z and of z * z, from the raw moments.
    z = (moments.mean - mean) / deviation
    zz = (moments.square - 2 * mean * moments.mean + mean**2) / deviation**2
    design = np.concatenate([z, zz], axis=1)  # [N, 2 F]
    # Centred, so that the weights of different folds predict on one scale, without intercepts.
    center = design.mean(axis=0)
    design -= center
    # Every layer has the same say in what the penalty allows, however many features it has.
    share = np.tile(np.repeat([1 / np.sqrt(w) for w in moments.widths], moments.widths), 2)  # [2 F]

    target = standardise_within(scores, groups)
    folds = stratified_folds(groups, FOLDS, seed)
    raw = np.empty_like(target)
    for fold in range(FOLDS):
        inside = folds != fold
        penalty = choose_penalty(design[inside], target[inside], groups[inside], share, seed + 1)
        raw[~inside] = design[~inside] @ ridge(design[inside], target[inside], groups[inside], share, [penalty])[0]
    calibration = calibrate(raw, (scores - scale[0]) / (scale[1] - scale[0]))
    out_of_fold = apply_calibration(raw, calibration)

    penalty = choose_penalty(design, target, groups, share, seed)
    weight = ridge(design, target, groups, share, [penalty])[0]
    bias = -float(center @ weight)
    readout = Readout(layers, torch.from_numpy(mean), torch.from_numpy(deviation), torch.from_numpy(weight), bias)
    return FittedReadout(readout, calibration, penalty, out_of_fold, agreement(out_of_fold, scores, groups))


def pooled_moments(method: Method, dataset: ImageDataset, layers: Layers, batch_size: int = 32) -> Moments:
    """Run the frozen encoder over images and pool its patch features."""
    means, squares = [], []
    widths: tuple[int, ...] = ()
    with torch.inference_mode():
        for batch in show_progress(DataLoader(dataset, batch_size), "features"):
            images = batch.permute(0, 3, 1, 2).float() / 255.0
            chosen = select_layers(images, method.encoder(images), layers)
            widths = tuple(layer.shape[2] for layer in chosen)
            together = torch.cat(chosen, dim=2).double()  # [N, L, F]
            means.append(together.mean(dim=1))
            squares.append(together.square().mean(dim=1))
    return Moments(torch.cat(means).numpy(), torch.cat(squares).numpy(), widths)


def ridge(
    design: Floats, target: Floats, groups: npt.NDArray[np.str_], share: Floats, penalties: Sequence[float]
) -> list[Floats]:
    """Ridge regression within groups: one weight vector [F] a penalty.

    Each group is centred, which takes its own offset out, and weighs the same whatever its number
    of images. Columns are scaled to the deviation `share` ([F]) within groups before the penalty
    applies. Solved in the dual, because there are more features than images.
    """
    x, y = design.copy(), target.copy()
    for group in set(groups.tolist()):
        chosen = groups == group
        weight = np.sqrt(len(groups) / (chosen.sum() * len(set(groups.tolist()))))
        x[chosen] = (x[chosen] - x[chosen].mean(axis=0)) * weight
        y[chosen] = (y[chosen] - y[chosen].mean()) * weight
    deviation = (np.sqrt(np.mean(x**2, axis=0)) + 1e-9) / share
    x /= deviation
    values, vectors = np.linalg.eigh(x @ x.T / len(x))
    turned = vectors.T @ y / len(x)
    return [x.T @ (vectors @ (turned / (values + penalty))) / deviation for penalty in penalties]


def choose_penalty(design: Floats, target: Floats, groups: npt.NDArray[np.str_], share: Floats, seed: int) -> float:
    """The penalty with the highest cross-validated PCC, averaged over the groups."""
    folds = stratified_folds(groups, FOLDS, seed)
    predicted = np.empty((len(PENALTIES), len(target)))
    for fold in range(FOLDS):
        inside = folds != fold
        weights = ridge(design[inside], target[inside], groups[inside], share, PENALTIES)
        predicted[:, ~inside] = np.stack(weights) @ design[~inside].T
    names = set(groups.tolist())
    quality = [np.mean([pcc(p[groups == g], target[groups == g]) for g in names]) for p in predicted]
    return PENALTIES[int(np.argmax(quality))]


def stratified_folds(groups: npt.NDArray[np.str_], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """A fold for each image, every group spread evenly over them: [N]."""
    rng = np.random.default_rng(seed)
    assigned = np.empty(len(groups), dtype=np.int64)
    for group in sorted(set(groups.tolist())):
        members = rng.permutation(np.flatnonzero(groups == group))
        assigned[members] = np.arange(len(members)) % folds
    return assigned


def calibrate(raw: Floats, rated: Floats) -> Calibration:
    """The logistic curve nearest to the ratings (in [0, 1]) in squared error; it must not decrease."""
    target = np.clip(rated, TARGET_MARGIN, 1.0 - TARGET_MARGIN)

    def residuals(parameters: Floats) -> Floats:
        return apply_calibration(raw, Calibration(*parameters)) - target

    solution = least_squares(residuals, x0=[1.0, 0.0], bounds=([1e-3, -np.inf], [np.inf, np.inf]))
    return Calibration(float(solution.x[0]), float(solution.x[1]))


def apply_calibration(raw: Floats, calibration: Calibration) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-(calibration.slope * raw + calibration.intercept))))
