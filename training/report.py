"""An evaluation as one HTML page that needs nothing else: figures, scatters, the largest errors, heatmaps, curves."""

import base64
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from clicv2.contract import Figure, Float32
from clicv2.heatmap import fit, overlay, render_map, to_png
from clicv2.imaging import decode
from training import charts
from training.charts import Chart
from training.curves import METRICS, read_curves
from training.data.ratings import Floats, standardise_within
from training.evaluate import Evaluation, Evidence
from training.localisation import area_under_curve
from training.metrics import ON_SCALE
from training.tables import IN_SAMPLE, title

TEMPLATE = "report.html"
# How many of each are shown.
ERRORS = 12
COMPOSITIONS = 9
# Longest side of a picture on the page, in pixels, and its JPEG quality: some 12 kB each.
SIDE = 288
QUALITY = 82


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: figures in the order of its columns, None where a measure says nothing."""

    name: str
    figures: tuple[Figure | None, ...]
    baseline: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture beside its heatmap, both as data URIs, and what there is to say of them."""

    name: str
    picture: str
    heatmap: str
    caption: str


def write_report(result: Evaluation, model: Path, out: Path) -> None:
    """Write the page. Raises ValueError for an evaluation without evidence.

    Args:
        model: what was evaluated; if it is a run, its curves are shown too.
    """
    if result.evidence is None:
        raise ValueError("a report needs the evidence: evaluate with Questions(evidence=True)")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("training"),
        autoescape=True,  # names of files and groups are strangers' text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = "score" if "score" in result.outputs else "entropy"
    page = environment.get_template(TEMPLATE).render(
        name=result.about.get("name", result.model),
        images=result.images,
        ratings=Path(result.ratings).name,
        facts=facts(result),
        note=IN_SAMPLE if result.in_sample else "",
        measures=_measures(result),
        summary=summary_rows(result),
        shown=title(shown, result),
        by_group=group_rows(result, shown),
        localisation=[(title(key, result), found) for key, found in result.localisation.items()],
        leak=[(title(key, result), found) for key, found in result.leak.items()],
        scatters=scatter_charts(result, result.evidence, shown),
        errors=largest_errors(result.evidence),
        compositions=compositions(result.evidence),
        calibrated=shown == "score" and result.evidence.scale is not None,
        curves=curve_charts(model if model.is_dir() else model.parent),
        scale=_png(render_map(np.linspace(0, 1, 64, dtype=np.float32)[None], (256, 12), max_side=256)),
        width=charts.WIDTH,
        height=charts.HEIGHT,
    )
    out.write_text(page, encoding="utf-8")


def facts(result: Evaluation) -> list[tuple[str, str]]:
    """What the model says of itself, for people: what it is about, and that."""
    return [_fact(name, value) for name, value in result.about.items()]


def _fact(name: str, value: str | float) -> tuple[str, str]:
    match name, value:
        case "bytes", int():
            return "file", f"{value / 2**20:.1f} MiB"
        case "parameters", int():
            return name, f"{value:,}"
        case "seconds_per_image_one_core", float():
            return "one picture, one core, as measured at export", f"{1e3 * value:.1f} ms"
        case "sha256", str():
            return name, f"{value[:12]}…"
    return name, str(value)


def summary_rows(result: Evaluation) -> list[Row]:
    """One row an output or baseline, each figure the mean over the groups."""
    measures = _measures(result)
    rows = {**result.outputs, **result.baselines}
    return [
        Row(title(name, result), tuple(row.mean.get(measure) for measure in measures), name in result.baselines)
        for name, row in rows.items()
    ]


def group_rows(result: Evaluation, output: str) -> list[Row]:
    """One row a group."""
    figures = result.outputs[output].groups
    groups = next(iter(figures.values()))
    return [
        Row(group, tuple(figures[m][group] if m in figures else None for m in _measures(result))) for group in groups
    ]


def _measures(result: Evaluation) -> list[str]:
    return [m for m in ON_SCALE if any(m in output.mean for output in result.outputs.values())]


def scatter_charts(result: Evaluation, evidence: Evidence, output: str) -> list[Chart]:
    """A chart a group: an output of the model against the ratings."""
    ratings, given = evidence.ratings, _output(evidence)
    calibrated = output == "score" and evidence.scale is not None
    span = evidence.scale or (float(ratings.scores.min()), float(ratings.scores.max()))
    made = []
    for group in ratings.group_names:
        chosen = ratings.groups == group
        x, y = ratings.scores[chosen], given[chosen]
        names = [source.name for source, taken in zip(ratings.sources, chosen, strict=True) if taken]
        labels = [f"{name}: rated {a:g}, {output} {b:.3f}" for name, a, b in zip(names, x, y, strict=True)]
        pcc = result.outputs[output].groups["pcc"][group].value
        summary = f"{output} against rating of {len(x)} pictures of {group}; their PCC is {pcc:.2f}"
        heading = f"{group}: PCC {pcc:.2f}"
        drawn = (("rating", x, span), (output, y, (0.0, 1.0)))
        made.append(charts.scatter(heading, summary, *drawn, labels, diagonal=calibrated))
    return made


def largest_errors(evidence: Evidence) -> list[Pair]:
    """The pictures whose output is furthest from their rating, both standardised within the group."""
    ratings, given = evidence.ratings, _output(evidence)
    error = standardise_within(given, ratings.groups) - standardise_within(ratings.scores, ratings.groups)
    assert evidence.scores.heatmap is not None  # noqa: S101  # evidence has heatmaps
    pairs = []
    for number in np.argsort(-np.abs(error), kind="stable")[:ERRORS]:
        source = ratings.sources[number]
        decoded = decode(source.read(), evidence.spec)
        side = "too complex" if error[number] > 0 else "too simple"
        caption = (
            f"{abs(error[number]):.1f} deviations {side}: rated {ratings.scores[number]:g}, "
            f"scored {given[number]:.2f}; {ratings.groups[number]}"
        )
        size = (decoded.width, decoded.height)
        pairs.append(_pair(source.name, decoded.image, evidence.scores.heatmap[number], size, caption))
    return pairs


def compositions(evidence: Evidence) -> list[Pair]:
    """Composed pictures, from the worst heatmap to the best in even steps."""
    areas = np.array(
        [
            area_under_curve(map_, each.busy)
            for map_, each in zip(evidence.composed_heatmaps, evidence.composed, strict=True)
        ]
    )
    order = np.argsort(areas, kind="stable")
    chosen = np.unique(np.linspace(0, len(order) - 1, COMPOSITIONS).round().astype(np.int64))
    pairs = []
    for number in order[chosen]:
        pixels = evidence.composed[number].pixels
        size = (pixels.shape[1], pixels.shape[0])
        name, caption = f"composed picture {number + 1}", f"AUC {areas[number]:.3f}"
        pairs.append(_pair(name, Image.fromarray(pixels), evidence.composed_heatmaps[number], size, caption))
    return pairs


def curve_charts(run: Path) -> list[Chart]:
    """The curves of a run; none where there is no metrics file."""
    if not (run / METRICS).exists():
        return []
    return [
        charts.curve(
            curve.name,
            f"{curve.name}: {curve.smooth_value[0]:.4g} at first, {curve.smooth_value[-1]:.4g} at last",
            (curve.step, curve.value),
            (curve.smooth_step, curve.smooth_value),
            curve.bounds,
        )
        for curve in read_curves(run)
    ]


def _output(evidence: Evidence) -> Floats:
    return evidence.scores.entropy if evidence.scores.score is None else evidence.scores.score


def _pair(name: str, image: Image.Image, heatmap: Float32, size: tuple[int, int], caption: str) -> Pair:
    """Args: size: width and height of the original, whose proportions the page shows."""
    small = image.resize(fit(size, SIDE), Image.Resampling.LANCZOS)
    return Pair(name, _jpeg(small), _jpeg(overlay(small, heatmap, size, max_side=SIDE)), caption)


def _jpeg(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _png(image: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(to_png(image)).decode()}"
