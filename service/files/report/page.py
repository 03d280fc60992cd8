"""The page: one HTML file that fetches nothing, runs nothing, and treats every name as a stranger's text."""

import base64
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clicv2 import contract
from clicv2.contract import Manifest
from clicv2.errors import ImageError
from clicv2.heatmap import overlay, render_map
from service.files.errors import Missing
from service.files.finding import Source, locate
from service.files.local import LocalScorer
from service.files.names import as_path
from service.files.pipeline import PictureError
from service.files.report import drawing
from service.files.report.summary import DOTS, LISTED, NEARLY_CONSTANT, Scored, Summary

if TYPE_CHECKING:  # installed only where it is used
    from jinja2 import Environment

# Longest side of a picture on the page, in pixels, and its JPEG quality: some 12 kB each.
SIDE = 288
QUALITY = 82


@dataclass(frozen=True, slots=True)
class Example:
    """A picture beside its heatmap, both as data URIs; None where it can no longer be read."""

    name: str
    caption: str
    picture: str | None
    heatmap: str | None


def render(summary: Summary, title: str, scorer: LocalScorer) -> str:
    """The page of a set in which something was scored. Raises Missing."""
    dots = summary.dots
    return (
        environment()
        .get_template("report.html")
        .render(
            title=title,
            facts=_facts(summary, scorer.manifest),
            summary=summary,
            histogram=drawing.histogram(summary.histogram, scorer.manifest.reference, summary.median),
            scatter=drawing.scatter(summary.cells, summary.named, dots) if dots else None,
            as_cells=len(dots) > DOTS,
            most=examples(summary.most, scorer),
            least=examples(summary.least, scorer),
            listed=LISTED,
            nearly_constant=NEARLY_CONSTANT,
            scale=_jpeg(render_map(np.linspace(0, 1, 64, dtype=np.float32)[None], (256, 12), max_side=256)),
            width=drawing.WIDTH,
            height=drawing.HEIGHT,
            left=drawing.LEFT,
            right=drawing.WIDTH - drawing.RIGHT,
            top=drawing.TOP,
            bottom=drawing.HEIGHT - drawing.BOTTOM,
        )
    )


def environment() -> "Environment":
    """What makes the page, to be asked for before the pictures are scored. Raises Missing."""
    try:
        import jinja2
    except ImportError:
        raise Missing("jinja2", "the report") from None
    return jinja2.Environment(
        loader=jinja2.PackageLoader("service.files.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def examples(chosen: list[Scored], scorer: LocalScorer) -> list[Example]:
    """These pictures once more, with their heatmaps."""
    by_path = {as_path(each.path): each for each in chosen}
    made = {path: _example(by_path[path], source, scorer) for path, source in locate(by_path)}
    return [made.get(path) or _gone(each) for path, each in by_path.items()]


def _gone(each: Scored) -> Example:
    return Example(each.path, f"{_caption(each)}; it is no longer there", None, None)


def _caption(each: Scored) -> str:
    return f"{each.score:.3f}{_standing(each.percentile)}"


def _example(each: Scored, source: Source, scorer: LocalScorer) -> Example:
    caption = _caption(each)
    try:
        answer = scorer.answer(source, SIDE)
    except (OSError, ImageError, PictureError) as error:
        return Example(each.path, f"{caption}; it can no longer be read: {error}", None, None)
    decoded = answer.decoded
    if decoded.preview is None:
        raise ValueError("a preview was asked for")
    cells = contract.local_score(answer.prediction.heatmap)
    laid_over = overlay(decoded.preview, cells, decoded.size, max_side=SIDE)
    return Example(each.path, caption, _jpeg(decoded.preview), _jpeg(laid_over))


def _standing(percentile: float | None) -> str:
    if percentile is None:
        return ""
    if percentile in (0, 100):
        return f", {'below' if percentile == 0 else 'above'} all of the reference"
    digits = 0 if 1 <= percentile <= 99 else 1
    return f", above {min(max(percentile, 0.1), 99.9):.{digits}f} % of the reference"


def _facts(summary: Summary, manifest: Manifest) -> list[tuple[str, str]]:
    middle = manifest.percentile(summary.median)
    return [
        ("pictures", f"{summary.scored:,}"),
        ("median score", f"{summary.median:.3f}"),
        ("the median picture", f"is more complex than {middle:.0f} % of the model’s reference"),
        ("mean score", f"{summary.mean:.3f}"),
        ("files", f"{summary.bytes / 1e6:,.1f} MB"),
        ("cannot be scored", f"{summary.broken.count:,}"),
        ("nearly one colour", _nearly_constant(summary)),
        ("copies of others", f"{summary.copies:,}"),
        ("model", f"{manifest.name}:{manifest.version}, sha256 {manifest.sha256[:12]}"),
    ]


def _nearly_constant(summary: Summary) -> str:
    """How many, and not that there are none where nobody has looked."""
    if summary.contrasted == summary.scored:
        return f"{summary.constant.count:,}"
    if summary.contrasted:
        return f"{summary.constant.count:,} of {summary.contrasted:,}; of the others the scores do not say"
    return "not known: a service made the scores"


def _jpeg(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
