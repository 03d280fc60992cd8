"""Fit a readout to human ratings on frozen features, and calibrate its score to [0, 1].

Ridge regression with everything centred within its group, because a group of ratings has a scale
of its own; each group weighs the same. The penalty is chosen by cross-validation, and the quality
that is reported comes from a second cross-validation around the first (nested), so that no image
has a say in its own prediction.

Taking the colours out of a picture changes how complex people find it only a little (Ciocca et
al., Does color influence image complexity perception?, CCIW 2015), but colour is a convenient
proxy for other things in any few hundred rated pictures. So each picture is also seen in grey,
and a change of the score between the two is penalised.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import least_squares
from torch.utils.data import DataLoader

from clicv2.spec import PreprocessSpec
from training.checkpoint import Checkpoint
from training.data.images import ImageDataset
from training.data.ratings import Floats, Ratings, file_sha256, load_ratings, standardise_within
from training.methods.protocol import Method
from training.metrics import Agreement, agreement
from training.models.readout import CODE_LENGTH, Calibration, Layers, Readout, select_layers
from training.progress import show_progress
from training.ridge import Samples, choose_penalty, cross_validated, ridge
from training.transforms.augment import luma

FILE = "readout.pt"
REPORT = "fit.json"
# Measured half-way through pretraining (dev half of SAVOIAS): without it a grey copy scores 1.2
# deviations lower and grey copies agree with the ratings at .56; with it .4 lower and .63, for
# .007 of the colour pictures' PCC.
GREY_INVARIANCE = 0.2
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


def fit_run(
    run: Path, images: Sequence[Path], table: Path, layers: Layers, scale: tuple[float, float], seed: int = 0
) -> FittedReadout:
    """Fit a readout for a pretraining run and write it, with a report, into the run's folder.

    Args:
        layers: that the readout sees; () for the code lengths and the encoder's last block.
    """
    checkpoint = Checkpoint.load(run)
    ratings = load_ratings(table, images)
    chosen = layers or (CODE_LENGTH, checkpoint.recipe.encoder.depth - 1)
    fitted = fit_readout(checkpoint.method(), ratings, checkpoint.recipe.input_spec, chosen, scale, seed)
    fitted.save(run / FILE)
    report = {
        "layers": list(chosen),
        "ratings": table.name,
        "ratings_sha256": file_sha256(table),
        "ratings_images": len(ratings),
        "penalty": fitted.penalty,
        "cross_validated": {measure: asdict(figure) for measure, figure in fitted.quality.mean.items()},
    }
    (run / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    return fitted


def fit_readout(
    method: Method, ratings: Ratings, spec: PreprocessSpec, layers: Layers, scale: tuple[float, float], seed: int = 0
) -> FittedReadout:
    """Fit on `ratings`, whose scores run over `scale` (lowest and highest possible) within each group."""
    dataset = ImageDataset(ratings.sources, spec)
    coloured, grey = (pooled_moments(method, dataset, layers, grey=grey) for grey in (False, True))
    return fit_on_moments(coloured, grey, ratings.scores, ratings.groups, layers, scale, seed)


def fit_on_moments(
    coloured: Moments,
    grey: Moments,
    scores: Floats,
    groups: npt.NDArray[np.str_],
    layers: Layers,
    scale: tuple[float, float],
    seed: int = 0,
) -> FittedReadout:
    """`fit_readout` on features that are already pooled, of the images and of their grey copies."""
    mean = coloured.mean.mean(axis=0)  # [F] over all patches of all images
    deviation = np.sqrt(np.maximum(coloured.square.mean(axis=0) - mean**2, 1e-12))
    design, design_grey = (_design(moments, mean, deviation) for moments in (coloured, grey))
    # Centred, so that the weights of different folds predict on one scale, without intercepts.
    center = design.mean(axis=0)
    target = standardise_within(scores, groups)
    samples = Samples(design - center, target, groups, design_grey - design, GREY_INVARIANCE)
    # Every layer has the same say in what the penalty allows, however many features it has.
    share = np.tile(np.repeat([1 / np.sqrt(w) for w in coloured.widths], coloured.widths), 2)  # [2 F]

    raw = cross_validated(samples, share, seed)
    calibration = calibrate(raw, (scores - scale[0]) / (scale[1] - scale[0]))
    out_of_fold = apply_calibration(raw, calibration)

    penalty = choose_penalty(samples, share, seed)
    weight = ridge(samples, share, [penalty])[0]
    bias = -float(center @ weight)
    readout = Readout(layers, torch.from_numpy(mean), torch.from_numpy(deviation), torch.from_numpy(weight), bias)
    return FittedReadout(readout, calibration, penalty, out_of_fold, agreement(out_of_fold, scores, groups))


def _design(moments: Moments, mean: Floats, deviation: Floats) -> Floats:
    """Means over the patches of the standardised features z, then of z * z, from the raw moments: [N, 2 F]."""
    z = (moments.mean - mean) / deviation
    zz = (moments.square - 2 * mean * moments.mean + mean**2) / deviation**2
    return np.concatenate([z, zz], axis=1)


def pooled_moments(
    method: Method, dataset: ImageDataset, layers: Layers, *, grey: bool = False, batch_size: int = 32
) -> Moments:
    """Run the frozen encoder over images, or over grey copies of them, and pool its patch features."""
    means, squares = [], []
    widths: tuple[int, ...] = ()
    with torch.inference_mode():
        for batch in show_progress(DataLoader(dataset, batch_size), "grey features" if grey else "features"):
            images = batch.permute(0, 3, 1, 2).float() / 255.0
            if grey:
                images = luma(images).unsqueeze(1).repeat(1, 3, 1, 1)
            chosen = select_layers(images, method.encoder(images), layers)
            widths = tuple(layer.shape[2] for layer in chosen)
            together = torch.cat(chosen, dim=2).double()  # [N, L, F]
            means.append(together.mean(dim=1))
            squares.append(together.square().mean(dim=1))
    return Moments(torch.cat(means).numpy(), torch.cat(squares).numpy(), widths)


def calibrate(raw: Floats, rated: Floats) -> Calibration:
    """The logistic curve nearest to the ratings (in [0, 1]) in squared error; it must not decrease."""
    target = np.clip(rated, TARGET_MARGIN, 1.0 - TARGET_MARGIN)

    def residuals(parameters: Floats) -> Floats:
        return apply_calibration(raw, Calibration(*parameters)) - target

    solution = least_squares(residuals, x0=[1.0, 0.0], bounds=([1e-3, -np.inf], [np.inf, np.inf]))
    return Calibration(float(solution.x[0]), float(solution.x[1]))


def apply_calibration(raw: Floats, calibration: Calibration) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-(calibration.slope * raw + calibration.intercept))))
