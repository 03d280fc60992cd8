"""Fine-tune all weights on human ratings, as CLIC did on IC9600 (arXiv 2411.12792); what comes out is a run.

The score stays the logistic of the mean of the readout's cells, so the heatmap still explains it.
But ratings have then touched every weight: the output that was label-free before is no longer, and
the run's report says so.

The images that a training has seen flatter it, also those that told it when to stop. So a figure is
claimed only from folds: as many further trainings, each of which predicts images that it has not seen.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from training.checkpoint import FILE, Checkpoint
from training.curves import plot_curves
from training.data.ratings import file_sha256, load_ratings
from training.fit import FILE as READOUT
from training.fit import (
    REPORT,
    apply_calibration,
    calibrate,
    default_layers,
    finetunings,
    refuse_seen_ratings,
    save_readout,
)
from training.metrics import Agreement, agreement, to_unit
from training.ridge import stratified_folds
from training.tuning import STATE, TuningSettings, raw_scores, tune

FOLDS = "folds"


@dataclass(frozen=True, slots=True)
class Finetuned:
    """What came of a fine-tuning.

    Attributes:
        epoch: the best one; 0 when no epoch did better than the frozen features on the held-out images.
        quality: agreement of scores with ratings by cross-validation; None without folds.
    """

    epoch: int
    quality: Agreement | None


def finetune(
    run: Path,
    images: Sequence[Path],
    table: Path,
    out: Path,
    settings: TuningSettings,
    folds: int = 0,
    *,
    checkpoint_every: int = 200,
) -> Finetuned:
    """Fine-tune the run's weights into the folder `out`, or continue what was begun there.

    Args:
        folds: for a figure of the quality, at the price of so many further trainings; 0 for none.

    Raises ValueError when `out` holds something else, or when the run was fine-tuned on these ratings already.
    """
    if folds == 1 or folds < 0:
        raise ValueError(f"cross-validation takes 2 folds or more (or 0 for none), got {folds}")
    if (out / FILE).exists() and not (out / STATE).exists():
        raise ValueError(f"{out} holds a run that was not fine-tuned here: choose another folder")
    checkpoint = Checkpoint.load(run)
    ratings = load_ratings(table, images)
    settings = settings.model_copy(update={"layers": settings.layers or default_layers(checkpoint.method())})
    earlier = finetunings(run)
    refuse_seen_ratings(run, earlier, table)
    rated = to_unit(ratings.scores, settings.scale)
    spec = checkpoint.recipe.input_spec
    origin = {
        "from": run.name,
        "from_sha256": file_sha256(run / FILE if run.is_dir() else run),
        "ratings": table.name,
        "ratings_sha256": file_sha256(table),
    }

    out_of_fold = np.zeros(len(ratings))
    assigned = stratified_folds(ratings.groups, max(folds, 1), settings.seed)
    for fold in range(folds):
        inside = assigned != fold
        identity = {**origin, "fold": [fold, folds]}
        label = f"fold {fold + 1} of {folds}"
        folder = out / FOLDS / str(fold)
        tuned = tune(checkpoint, ratings.only(inside), settings, folder, identity, label, checkpoint_every)
        unseen = ratings.only(~inside)
        out_of_fold[~inside] = raw_scores(tuned.method, tuned.readout, unseen.sources, spec)

    tuned = tune(checkpoint, ratings, settings, out, {**origin, "folds": folds}, "all ratings", checkpoint_every)
    plot_curves(out)
    if folds:
        calibration = calibrate(out_of_fold, rated)
        scores = apply_calibration(out_of_fold, calibration)
        quality = agreement(scores, ratings.scores, ratings.groups, scale=settings.scale)
    else:
        held_out = ratings.only(tuned.held_out)
        raw = raw_scores(tuned.method, tuned.readout, held_out.sources, spec)
        calibration, quality = calibrate(raw, rated[tuned.held_out]), None

    # Without the optimiser's state: nothing is to continue the pretraining from here.
    Checkpoint(checkpoint.recipe, checkpoint.step, tuned.method.module.state_dict(), {}).save(out / FILE)
    save_readout(tuned.readout, calibration, out / READOUT)
    done = {**origin, "settings": settings.model_dump(mode="json"), "folds": folds, "best_epoch": tuned.epoch}
    report = {
        "kind": settings.kind,
        "layers": list(settings.layers),
        "label_free": False,
        "finetuned": [*earlier, done],
        "ratings": table.name,
        "ratings_sha256": origin["ratings_sha256"],
        "ratings_images": len(ratings),
        "scale": list(settings.scale),
        "cross_validated": {m: asdict(figure) for m, figure in quality.mean.items()} if quality else {},
    }
    (out / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    return Finetuned(tuned.epoch, quality)
