"""How good is a model: agreement with human ratings, beside classical measures; its heatmaps; its content leak."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from clicv2.contract import Float32
from clicv2.imaging import Pixels
from clicv2.spec import PreprocessSpec
from training import classical
from training.data.images import ImageDataset
from training.data.ratings import Floats, Ratings, file_sha256, load_ratings
from training.leak import IMAGES, Labelled, Leak, load_labelled, measure_leak
from training.localisation import PICTURES, Composition, Localisation, compose, localise
from training.metrics import Agreement, Scale, agreement
from training.progress import show_progress
from training.scorers import Facts, Scorer, Scores, open_scorer, score_all, score_batches

# Rated pictures that the compositions take their busy pieces from.
COMPOSED_FROM = 100


@dataclass(frozen=True, slots=True)
class LeakTest:
    """Images with known classes: see `training.leak.load_labelled`."""

    manifest: Path
    images: tuple[Path, ...]
    limit: int = IMAGES


@dataclass(frozen=True, slots=True)
class Questions:
    """What an evaluation is to answer beside the correlations with ratings.

    Attributes:
        scale: lowest and highest possible rating, for the calibrated score's RMSE; None: without.
        baselines: whether to measure what classical measures reach on the same pictures.
        heatmaps: whether to judge heatmaps on composed pictures.
        leak: images to measure the content leak on; None: without.
        evidence: whether to keep what a report shows (it includes the heatmaps).
    """

    scale: Scale | None = None
    baselines: bool = False
    heatmaps: bool = False
    leak: LeakTest | None = None
    evidence: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the figures were taken from, for a report.

    Attributes:
        spec: the preprocessing that the model expects.
        scale: lowest and highest possible rating, if known.
        ratings: the rated images.
        scores: of those, with heatmaps.
        composed, composed_heatmaps: the composed pictures and what the model makes of them, [N, h, w] in [0, 1].
    """

    spec: PreprocessSpec
    scale: Scale | None
    ratings: Ratings
    scores: Scores
    composed: tuple[Composition, ...]
    composed_heatmaps: Float32


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a model does on a set of ratings.

    Attributes:
        model, ratings: what was compared.
        about: what the model says of itself, and its size.
        images: how many.
        outputs: "score" (calibrated; absent without a readout; alone in having an RMSE) and "entropy" (label-free).
        in_sample: the model was fitted to these very ratings, so "score" flatters it.
        label_free: no rating has touched the weights; after fine-tuning "entropy" is not what it is called.
        baselines: classical measure -> its agreement on the same pictures.
        localisation: "heatmap" (the model's) and "local_gradient_energy" (a classical one) -> how well it finds
            what is busy.
        leak: "embedding" (the model's) and "classical_measures" -> how well a probe names classes from it.
        evidence: for a report.
    """

    model: str
    ratings: str
    about: Facts
    images: int
    outputs: Mapping[str, Agreement]
    in_sample: bool
    label_free: bool
    baselines: Mapping[str, Agreement] = field(default_factory=dict)
    localisation: Mapping[str, Localisation] = field(default_factory=dict)
    leak: Mapping[str, Leak] = field(default_factory=dict)
    evidence: Evidence | None = None

    def to_dict(self) -> dict[str, object]:
        """Everything but the evidence, fit for JSON."""
        content = asdict(replace(self, evidence=None))
        del content["evidence"]
        return content


def evaluate(
    model: Path, images: Sequence[Path], table: Path, *, questions: Questions | None = None, seed: int = 0
) -> Evaluation:
    """Score the rated images and compare. Raises ValueError, FileNotFoundError or ContractError on bad input.

    Args:
        images, table: see `load_ratings`.
        seed: of the bootstrap, the folds and the composed pictures.
    """
    asked = questions or Questions()
    ratings = load_ratings(table, images)
    labelled = None  # what is wrong with the tables is said before the minutes that scoring takes
    if asked.leak:
        labelled = load_labelled(asked.leak.manifest, asked.leak.images, limit=asked.leak.limit, seed=seed)
    scorer = open_scorer(model)
    dataset = ImageDataset(ratings.sources, scorer.spec)
    scores = score_all(scorer, dataset, heatmap=asked.heatmaps or asked.evidence)
    outputs = {}
    if scores.score is not None:
        outputs["score"] = agreement(scores.score, ratings.scores, ratings.groups, scale=asked.scale, seed=seed)
    outputs["entropy"] = agreement(scores.entropy, ratings.scores, ratings.groups, seed=seed)
    result = Evaluation(
        model=str(model),
        ratings=str(table),
        about=scorer.about,
        images=len(ratings),
        outputs=outputs,
        in_sample=file_sha256(table) in scorer.fitted_on,
        label_free=scorer.label_free,
        baselines=_baselines(dataset, ratings, seed) if asked.baselines else {},
        leak=_leak(scorer, labelled, asked.baselines, seed) if labelled else {},
    )
    if scores.heatmap is None:
        return result
    composed = _compose(dataset, (scores.heatmap.shape[1], scores.heatmap.shape[2]), seed)
    heatmaps = _heatmaps(scorer, composed)
    return replace(
        result,
        localisation=_localisation(composed, heatmaps, asked.baselines, seed),
        evidence=Evidence(scorer.spec, asked.scale, ratings, scores, composed, heatmaps) if asked.evidence else None,
    )


def _baselines(dataset: ImageDataset, ratings: Ratings, seed: int) -> dict[str, Agreement]:
    predictions = classical.baselines(_measured(dataset), ratings.scores, ratings.groups, seed)
    return {name: agreement(values, ratings.scores, ratings.groups, seed=seed) for name, values in predictions.items()}


def _measured(dataset: ImageDataset) -> Floats:
    numbers = show_progress(range(len(dataset)), "classical measures")
    return classical.measure_all(dataset[number].numpy() for number in numbers)


def _compose(dataset: ImageDataset, grid: tuple[int, int], seed: int) -> tuple[Composition, ...]:
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:COMPOSED_FROM]
    pictures: list[Pixels] = [dataset[number].numpy() for number in sorted(chosen.tolist())]
    return compose(PICTURES, (dataset.spec.height, dataset.spec.width), grid, pictures=pictures, seed=seed)


def _heatmaps(scorer: Scorer, composed: Sequence[Composition]) -> Float32:
    """[N, h, w], one picture after another."""
    each = (picture.pixels[None] for picture in show_progress(composed, "composed pictures"))
    heatmap = score_batches(scorer, each, heatmap=True).heatmap
    assert heatmap is not None  # noqa: S101  # it was asked for
    return heatmap


def _localisation(
    composed: Sequence[Composition], heatmaps: Float32, with_baseline: bool, seed: int
) -> dict[str, Localisation]:
    found = {"heatmap": localise(list(heatmaps), composed, seed)}
    if with_baseline:
        grid = (heatmaps.shape[1], heatmaps.shape[2])
        local = [classical.local_gradient_energy(picture.pixels, grid) for picture in composed]
        found["local_gradient_energy"] = localise(local, composed, seed)
    return found


def _leak(scorer: Scorer, labelled: Labelled, with_baseline: bool, seed: int) -> dict[str, Leak]:
    dataset = ImageDataset(labelled.sources, scorer.spec)
    embedding = score_all(scorer, dataset, embedding=True, description="embeddings").embedding
    assert embedding is not None  # noqa: S101  # it was asked for
    found = {"embedding": measure_leak(embedding.astype(np.float64), labelled.labels, seed)}
    if with_baseline:
        found["classical_measures"] = measure_leak(_measured(dataset), labelled.labels, seed)
    return found
