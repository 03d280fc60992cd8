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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import least_squares
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from clicv2.spec import PreprocessSpec
from training.checkpoint import Checkpoint
from training.data.images import ImageDataset
from training.data.ratings import Floats, Ratings, file_sha256, load_ratings, standardise_within
from training.kernel import Kernel, similarity_to, size
from training.methods.protocol import Method
from training.metrics import Agreement, Scale, agreement, to_unit
from training.models.computed import Computed
from training.models.readout import (
    CODE_LENGTH,
    CODING_RATE,
    PYRAMID,
    TERMS,
    Calibration,
    Kind,
    Layers,
    Readout,
    select_layers,
)
from training.models.similarity import Similarity
from training.progress import show_progress
from training.ridge import Samples, cross_validated, deviation_within, regress
from training.transforms.augment import luma

FILE = "readout.pt"
REPORT = "fit.json"
# Measured half-way through a pretraining, with a quadratic readout (dev half of SAVOIAS): without it
# a grey copy scores 1.2 deviations lower and grey copies agree with the ratings at .56; with it .4
# lower and .63, for .007 of the colour pictures' PCC.
GREY_INVARIANCE = 0.2
# Similarity needs less for as much. With an earlier encoder, at .14 a grey copy was .50 deviations lower and grey
# copies agreed at .689, without similarity at .2 it was .53 and .686.
KERNEL_GREY_INVARIANCE = 0.14
# Of the linear columns beside those of the kernel. From 0 to 1 all are equally good on rated pictures; what
# resembles none of them has the linear part alone.
LINEAR_PART = 0.5
STANDARDISED_ON = 256
SMALLEST_VARIANCE = 1e-12
BATCH_SIZE = 32
# Calibration targets stay off 0 and 1, which a logistic curve never reaches.
TARGET_MARGIN = 0.02


# "kernel" is "variety" with similarity beside it.
FitKind: TypeAlias = Literal["linear", "quadratic", "variety", "kernel"]


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


def save_readout(readout: Readout, calibration: Calibration, path: Path) -> None:
    content = {
        "kind": readout.kind,
        "layers": list(readout.layers),
        "state": readout.state_dict(),
        "calibration": [calibration.slope, calibration.intercept],
    }
    torch.save(content, path)


def load_readout(path: Path) -> tuple[Readout, Calibration]:
    """Read what `save_readout` wrote; files from before there were kinds hold quadratic ones."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = content["state"]
    parts = [state.get(f"similarity.{name}") for name in ("directions", "offset", "landmarks", "weight")]
    similarity = None if parts[0] is None else Similarity(*parts)
    readout = Readout(
        tuple(content["layers"]),
        state["mean"],
        state["scale"],
        state["weight"],
        float(state["bias"]),
        content.get("kind", "quadratic"),
        similarity,
        state.get("pattern"),
    )
    return readout, Calibration(*content["calibration"])


def fit_run(
    run: Path,
    images: Sequence[Path],
    table: Path,
    layers: Layers,
    scale: Scale,
    seed: int = 0,
    kind: FitKind = "variety",
) -> FittedReadout:
    """Fit a readout for a run and write it, with a report, into the run's folder.

    Args:
        layers: that the readout sees; () for `default_layers`.

    Raises ValueError when the run's encoder was fine-tuned on these very ratings: the features have
    seen them all, so no cross-validation of a readout on them could be honest.
    """
    checkpoint = Checkpoint.load(run)
    ratings = load_ratings(table, images)
    earlier = finetunings(run)
    refuse_seen_ratings(run, earlier, table)
    method = checkpoint.method()
    chosen = layers or default_layers(method)
    fitted = fit_readout(method, ratings, checkpoint.recipe.input_spec, chosen, scale, seed, kind)
    save_readout(fitted.readout, fitted.calibration, run / FILE)
    report = {
        "kind": kind,
        "layers": list(chosen),
        "label_free": not earlier,
        "finetuned": earlier,
        "ratings": table.name,
        "ratings_sha256": file_sha256(table),
        "ratings_images": len(ratings),
        "scale": list(scale),
        "penalty": fitted.penalty,
        "cross_validated": {measure: asdict(figure) for measure, figure in fitted.quality.mean.items()},
    }
    (run / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    return fitted


def default_layers(method: Method) -> Layers:
    """The code lengths and their coding rates, the stem's pyramid and the encoder's last block."""
    return (CODE_LENGTH, CODING_RATE, PYRAMID, method.encoder.depth - 1)


def finetunings(run: Path) -> list[dict[str, object]]:
    """What `training.finetune` did to the run's weights, oldest first; empty while no rating has touched them."""
    report = run / REPORT
    recorded: list[dict[str, object]] = json.loads(report.read_text()).get("finetuned", []) if report.exists() else []
    return recorded


def refuse_seen_ratings(run: Path, earlier: Sequence[Mapping[str, object]], table: Path) -> None:
    """Raises ValueError when one of the run's fine-tunings was on the same table."""
    if any(each["ratings_sha256"] == file_sha256(table) for each in earlier):
        raise ValueError(f"{run} was fine-tuned on {table} already: start from the run that was pretrained")


def fit_readout(
    method: Method,
    ratings: Ratings,
    spec: PreprocessSpec,
    layers: Layers,
    scale: Scale,
    seed: int = 0,
    kind: FitKind = "variety",
) -> FittedReadout:
    """Fit on `ratings`, whose scores run over `scale` (lowest and highest possible) within each group."""
    dataset = ImageDataset(ratings.sources, spec)
    readout, widths = standardise(method, dataset, layers, seed, "variety" if kind == "kernel" else kind)
    coloured, grey = (pooled_design(method, readout, dataset, grey=grey) for grey in (False, True))
    return fit_weights(
        readout, widths, coloured, grey, ratings.scores, ratings.groups, scale, seed, similar=kind == "kernel"
    )


def fit_weights(
    readout: Readout,
    widths: Sequence[int],
    coloured: Floats,
    grey: Floats,
    scores: Floats,
    groups: npt.NDArray[np.str_],
    scale: Scale,
    seed: int = 0,
    *,
    similar: bool = False,
) -> FittedReadout:
    """`fit_readout` on designs that are already pooled.

    Args:
        readout: without weights yet; `widths` are the numbers of features of its layers.
        coloured, grey: [N, F or 2 F] see `pooled_design`, of the images and of their grey copies.
        scores, groups: [N] the ratings.
        similar: with similarity to these images beside the linear weights.
    """
    # Every layer has the same say in what the penalty allows, however many features it has.
    share = np.tile(np.repeat([1 / np.sqrt(w) for w in widths], widths), TERMS[readout.kind])  # [F or 2 F]
    target = standardise_within(scores, groups)

    def samples(columns: _Columns) -> Samples:
        # Centred, so that the weights of different folds predict on one scale, without intercepts.
        centred = columns.coloured - columns.coloured.mean(axis=0)
        return Samples(centred, target, groups, columns.grey - columns.coloured, columns.invariance)

    plain = _Columns(coloured, grey, share, GREY_INVARIANCE)
    seen = _similar(coloured, grey, groups, share) if similar else plain
    raw = cross_validated(samples(seen), seen.share, seed)
    calibration = calibrate(raw, to_unit(scores, scale))
    out_of_fold = apply_calibration(raw, calibration)

    weight, penalty = regress(samples(seen), seen.share, seed)
    linear, similarity = seen.parts(weight)
    pattern = None
    if similar:
        of_patches = np.tile(np.repeat(_shows_patches(readout.layers), widths), TERMS[readout.kind])
        local = _Columns(coloured * of_patches, grey * of_patches, share, GREY_INVARIANCE)
        pattern = torch.from_numpy(regress(samples(local), share, seed)[0])
    bias = -float(seen.coloured.mean(axis=0) @ weight)
    fitted = Readout(
        readout.layers,
        readout.mean,
        readout.scale,
        torch.from_numpy(linear),
        bias,
        readout.kind,
        similarity,
        pattern,
    )
    return FittedReadout(fitted, calibration, penalty, out_of_fold, agreement(out_of_fold, scores, groups, scale=scale))


def _shows_patches(layers: Layers) -> list[bool]:
    """Which layers a map is drawn from, where it has weights of its own.

    The code lengths, for they know little but their patch. Of the encoder's features each has seen more than that, and
    weights that are best for a picture's mean make a speckled map of them (on composed pictures the area under the ROC
    curve was .95 with the pyramid and .90 with the last block of an earlier encoder, too, .97 without). Coding rates
    are of no patch.
    """
    if CODE_LENGTH in layers:
        return [layer == CODE_LENGTH for layer in layers]
    return [layer != CODING_RATE for layer in layers]


@dataclass(frozen=True, slots=True)
class _Columns:
    """What the regression sees of the images, [N, K], and of their grey copies.

    Attributes:
        share, invariance: see `training.ridge`.
        scale: [F] by which the linear columns, the first ones, were multiplied.
        kernel: of the others.
    """

    coloured: Floats
    grey: Floats
    share: Floats | None
    invariance: float
    scale: Floats | None = None
    kernel: Kernel | None = None

    def parts(self, weight: Floats) -> tuple[Floats, Similarity | None]:
        """The linear weights, of a design as it is, and the rest; of weights [K] of the columns."""
        if self.scale is None or self.kernel is None:
            return weight, None
        count = len(self.scale)
        kernel = self.kernel
        numbers = (kernel.directions, kernel.offset, kernel.landmarks, kernel.basis @ weight[count:])
        return weight[:count] * self.scale, Similarity(*(torch.from_numpy(each) for each in numbers))


def _similar(coloured: Floats, grey: Floats, groups: npt.NDArray[np.str_], share: Floats) -> _Columns:
    """Linear columns with those of a kernel beside them, all of which are to be penalised as they are."""
    scale = share / deviation_within(coloured, groups)
    kernel = similarity_to(coloured, grey, scale)
    scale = scale * np.sqrt(LINEAR_PART) / size(coloured * scale)
    seen, copies = (np.concatenate([each * scale, kernel.columns(each)], axis=1) for each in (coloured, grey))
    return _Columns(seen, copies, None, KERNEL_GREY_INVARIANCE, scale, kernel)


def standardise(
    method: Method, dataset: ImageDataset, layers: Layers, seed: int = 0, kind: Kind = "variety"
) -> tuple[Readout, tuple[int, ...]]:
    """A readout that knows the features' means and deviations over patches, but has no weights; and the layers' widths.

    Measured on at most `STANDARDISED_ON` of the images, drawn at random.
    """
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:STANDARDISED_ON]
    seen = Subset(dataset, sorted(chosen.tolist()))
    total, squares, patches = torch.zeros(()), torch.zeros(()), 0
    widths: tuple[int, ...] = ()
    with torch.inference_mode():
        for images in _images(seen, "scale of the features", grey=False):
            features = select_layers(Computed(images), method.encoder(images), layers)
            widths = tuple(layer.shape[2] for layer in features)
            flat = torch.cat(features, dim=2).double().flatten(0, 1)  # [N * L, F]
            total, squares, patches = total + flat.sum(dim=0), squares + flat.square().sum(dim=0), patches + len(flat)
    mean = total / patches
    deviation = (squares / patches - mean.square()).clamp(min=SMALLEST_VARIANCE).sqrt()
    return Readout(layers, mean, deviation, torch.zeros(TERMS[kind] * len(mean)), 0.0, kind), widths


def pooled_design(method: Method, readout: Readout, dataset: ImageDataset, *, grey: bool) -> Floats:
    """What the readout's weights will apply to, averaged over the patches of each image: [N, F or 2 F].

    Args:
        grey: of grey copies of the images.
    """
    with torch.inference_mode():
        pooled = [
            readout.design(Computed(images), method.encoder(images)).double().mean(dim=1)
            for images in _images(dataset, "grey features" if grey else "features", grey=grey)
        ]
    return torch.cat(pooled).numpy()


def _images(dataset: Dataset[Tensor], description: str, *, grey: bool) -> Iterator[Tensor]:
    """Batches [N, 3, H, W] in [0, 1], with a progress bar."""
    for batch in show_progress(DataLoader(dataset, BATCH_SIZE), description):
        images = batch.permute(0, 3, 1, 2).float() / 255.0
        yield luma(images).unsqueeze(1).repeat(1, 3, 1, 1) if grey else images


def calibrate(raw: Floats, rated: Floats) -> Calibration:
    """The logistic curve nearest to the ratings (in [0, 1]) in squared error; it must not decrease."""
    target = np.clip(rated, TARGET_MARGIN, 1.0 - TARGET_MARGIN)

    def residuals(parameters: Floats) -> Floats:
        return apply_calibration(raw, Calibration(*parameters)) - target

    solution = least_squares(residuals, x0=[1.0, 0.0], bounds=([1e-3, -np.inf], [np.inf, np.inf]))
    return Calibration(float(solution.x[0]), float(solution.x[1]))


def apply_calibration(raw: Floats, calibration: Calibration) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-(calibration.slope * raw + calibration.intercept))))
