"""Agreement of a model's outputs with human ratings, as a table or as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from clicv2.contract import Figure
from training.data.images import ImageDataset
from training.data.ratings import file_sha256, load_ratings
from training.metrics import MEASURES, Agreement, agreement
from training.scorers import open_scorer, score_all


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a model does on a set of ratings.

    Attributes:
        model, ratings: what was compared.
        images: how many.
        outputs: "score" (calibrated; absent without a readout) and "entropy" (label-free).
        in_sample: the readout was fitted on these very ratings, so "score" flatters it.
    """

    model: str
    ratings: str
    images: int
    outputs: dict[str, Agreement]
    in_sample: bool

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def evaluate(model: Path, images: Sequence[Path], table: Path, *, seed: int = 0) -> Evaluation:
    """Score the rated images and compare. Raises ValueError, FileNotFoundError or ContractError on bad input."""
    ratings = load_ratings(table, images)
    scorer = open_scorer(model)
    scores = score_all(scorer, ImageDataset(ratings.sources, scorer.spec))
    outputs = {"score": scores.score, "entropy": scores.entropy}
    return Evaluation(
        model=str(model),
        ratings=str(table),
        images=len(ratings),
        outputs={
            name: agreement(values, ratings.scores, ratings.groups, seed=seed)
            for name, values in outputs.items()
            if values is not None
        },
        in_sample=scorer.fitted_on == file_sha256(table),
    )


def agreement_table(result: Agreement, title: str) -> Table:
    """One row a group and one for their mean, each figure with its 95 % interval."""
    table = Table(title=title)
    table.add_column("group")
    for measure in MEASURES:
        table.add_column(measure.upper(), justify="right")
    for group in next(iter(result.groups.values())):
        table.add_row(group, *(_show(result.groups[measure][group]) for measure in MEASURES))
    table.add_section()
    table.add_row("mean over groups", *(_show(result.mean[measure]) for measure in MEASURES))
    return table


def _show(figure: Figure) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
