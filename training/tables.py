"""Evaluations as tables on a terminal, and the names under which people read of their parts."""

from rich.table import Table

from clicv2.contract import Figure
from training.classical import JPEG_QUALITY, MEAN_Z, RIDGE
from training.evaluate import Evaluation
from training.metrics import ON_SCALE, Agreement

TITLES = {
    "score": "calibrated score",
    "entropy": "label-free entropy",
    "jpeg_size": f"JPEG bytes a pixel, quality {JPEG_QUALITY}",
    "grey_entropy": "entropy of the grey levels",
    "edge_density": "edge density",
    "colourfulness": "colourfulness",
    "colours": "number of colours",
    "gradient_energy": "gradients at four scales",
    MEAN_Z: "mean z-score of these measures",
    RIDGE: "ridge on these measures, cross-validated",
    "heatmap": "the model's heatmap",
    "local_gradient_energy": "gradients in each cell",
    "embedding": "the model's embedding",
    "classical_measures": "the classical measures",
}
FINE_TUNED = "entropy output, fine-tuned on ratings"
IN_SAMPLE = "the model was fitted to these very ratings: the score's figures flatter it"


def title(name: str, result: Evaluation) -> str:
    """What people read for an output, a baseline or a kind of feature."""
    return FINE_TUNED if name == "entropy" and not result.label_free else TITLES[name]


def show(figure: Figure) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def agreement_table(result: Agreement, title: str) -> Table:
    """One row a group and one for their mean, each figure with its 95 % interval."""
    table = Table(title=title)
    table.add_column("group")
    for measure in result.mean:
        table.add_column(measure.upper(), justify="right")
    for group in next(iter(result.groups.values())):
        table.add_row(group, *(show(result.groups[measure][group]) for measure in result.mean))
    table.add_section()
    table.add_row("mean over groups", *(show(figure) for figure in result.mean.values()))
    return table


def summary_table(result: Evaluation) -> Table:
    """One row an output or baseline, each figure the mean over the groups; "-" where a measure says nothing."""
    rows = {**result.outputs, **result.baselines}
    measures = [measure for measure in ON_SCALE if any(measure in row.mean for row in rows.values())]
    table = Table(title=f"mean over groups: {result.images} pictures of {result.ratings}")
    table.add_column("")
    for measure in measures:
        table.add_column(measure.upper(), justify="right")
    for name, row in rows.items():
        cells = (show(row.mean[measure]) if measure in row.mean else "-" for measure in measures)
        table.add_row(title(name, result), *cells, end_section=name == "entropy")
    return table


def further_table(result: Evaluation) -> Table | None:
    """How well heatmaps find what is busy, and how well classes are named from features; None if neither was asked."""
    if not result.localisation and not result.leak:
        return None
    table = Table(title="heatmaps and content leak")
    table.add_column("")
    table.add_column("figure", justify="right")
    table.add_column("of a guess", justify="right")
    for name, found in result.localisation.items():
        said = f"{title(name, result)}: AUC over {found.pictures} composed pictures"
        table.add_row(said, show(found.auc), "0.500")
    for name, leak in result.leak.items():
        said = f"{title(name, result)}: accuracy of a probe for {leak.classes} classes, {leak.images} images"
        table.add_row(said, show(leak.accuracy), f"{leak.chance:.3f}")
    return table
