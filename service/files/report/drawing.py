"""Geometry of the page's charts: data -> positions, for the template to draw as SVG in the page's own colours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.files.report.summary import BINS, CELLS_A_DECADE, DECADES, DOTS, Counts, Scored

Floats = npt.NDArray[np.float64]

# In the drawing's units: about pixels.
WIDTH, HEIGHT = 480, 290
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 48


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of the grid and what it says."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Box:
    """A bar or a cell, and what it says when pointed at.

    Attributes:
        strength: 0 to 1, of its colour.
    """

    x: float
    y: float
    width: float
    height: float
    label: str
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Dot:
    """A picture."""

    x: float
    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws.

    Attributes:
        summary: for those who cannot see it.
        line: over the boxes, as SVG's "x,y x,y ..."; empty for none.
    """

    summary: str
    x_label: str
    y_label: str
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    boxes: tuple[Box, ...] = ()
    dots: tuple[Dot, ...] = ()
    line: str = ""


def histogram(counts: Counts, reference: Sequence[float], median: float) -> Chart:
    """How many pictures have which score, and how many would if they were as the model's reference pictures are.

    Args:
        counts: [BINS], of the score from 0 to 1.
        reference: scores at the percentiles 0, 1, ... 100.
    """
    edges = np.linspace(0.0, 1.0, BINS + 1)
    shares = counts / counts.sum()
    expected = np.diff(_share_below(edges, np.asarray(reference)))
    highest = float(max(shares.max(), expected.max()))
    x = _scale(edges, 0.0, 1.0, LEFT, WIDTH - RIGHT)
    boxes = tuple(
        Box(
            x[n] + 0.5,
            float(_up(share, highest)),
            x[n + 1] - x[n] - 1,
            round(HEIGHT - BOTTOM - float(_up(share, highest)), 1),
            f"{edges[n]:.3f} to {edges[n + 1]:.3f}: {counts[n]:,} pictures, {share:.1%}; reference {expected[n]:.1%}",
        )
        for n, share in enumerate(shares.tolist())
        if counts[n]
    )
    steps = [f"{at:g},{_up(share, highest):g}" for n, share in enumerate(expected) for at in (x[n], x[n + 1])]
    return Chart(
        f"Histogram of {counts.sum():,} scores; their median is {median:.2f}",
        "score",
        "share of the pictures",
        _score_ticks(LEFT, WIDTH - RIGHT),
        tuple(Tick(float(_up(share, highest)), f"{100 * share:.3g}%") for share in _round_steps(highest)),
        boxes=boxes,
        line=" ".join(steps),
    )


def scatter(cells: Counts, named: Mapping[tuple[int, int], str], dots: Sequence[Scored]) -> Chart:
    """Score against bytes a pixel: a dot a picture, or cells where there are too many.

    Args:
        cells, named: see `Summary`; some picture lies in one.
    """
    used = np.flatnonzero(cells.sum(axis=0))
    first = int(used[0]) // CELLS_A_DECADE
    last = int(used[-1]) // CELLS_A_DECADE + 1
    low, high = float(DECADES[0] + first), float(DECADES[0] + last)
    many = len(dots) > DOTS
    x_of = np.linspace(low, high, (last - first) * CELLS_A_DECADE + 1)
    return Chart(
        f"Score against bytes a pixel of {cells.sum():,} pictures",
        "bytes a pixel",
        "score",
        tuple(Tick(_across(float(power), low, high), f"{10.0**power:g}") for power in range(int(low), int(high) + 1)),
        _score_ticks(HEIGHT - BOTTOM, TOP),
        boxes=_boxes(cells, named, first * CELLS_A_DECADE, x_of, low, high) if many else (),
        dots=() if many else tuple(_dot(each, low, high) for each in dots if each.bytes_a_pixel),
    )


def _boxes(
    cells: Counts, named: Mapping[tuple[int, int], str], first: int, x_of: Floats, low: float, high: float
) -> tuple[Box, ...]:
    """Args: first: the column of the cells that begins at x_of[0]."""
    tall = (HEIGHT - BOTTOM - TOP) / BINS
    strengths = np.sqrt(cells / cells.max())  # a lone picture is to be seen beside a thousand
    boxes = []
    for row, column in np.argwhere(cells).tolist():
        left, right = (_across(float(x_of[n]), low, high) for n in (column - first, column - first + 1))
        count = cells[row, column]
        which = named[row, column] if count == 1 else f"{count:,} pictures, {named[row, column]} and others"
        label = f"{which}: about {10 ** x_of[column - first]:.2g} bytes a pixel, score {row / BINS:.2f}"
        top = round(HEIGHT - BOTTOM - (row + 1) * tall, 1)
        strength = round(0.12 + 0.88 * float(strengths[row, column]), 2)
        boxes.append(Box(left, top, round(right - left, 1), round(tall, 1), label, strength))
    return tuple(boxes)


def _dot(each: Scored, low: float, high: float) -> Dot:
    density = each.bytes_a_pixel or 0.0
    y = _scale(np.array([each.score]), 0.0, 1.0, HEIGHT - BOTTOM, TOP)[0]
    return Dot(
        _across(float(np.log10(density)), low, high), y, f"{each.path}: {each.score:.3f}, {density:.2g} bytes a pixel"
    )


def _share_below(scores: Floats, reference: Floats) -> Floats:
    """Of the reference, [N]; where many percentiles have one score, the highest counts."""
    shares = np.linspace(0.0, 1.0, len(reference))
    return np.asarray(np.interp(scores, reference, shares, left=0.0, right=1.0))


def _scale(values: Floats, low: float, high: float, start: float, end: float) -> list[float]:
    inside = np.clip(values, low, high)
    placed: list[float] = (start + (inside - low) / (high - low) * (end - start)).round(1).tolist()
    return placed


def _across(power: float, low: float, high: float) -> float:
    return _scale(np.array([power]), low, high, LEFT, WIDTH - RIGHT)[0]


def _up(share: float, highest: float) -> float:
    return _scale(np.array([share]), 0.0, highest, HEIGHT - BOTTOM, TOP)[0]


def _score_ticks(start: float, end: float) -> tuple[Tick, ...]:
    values = np.linspace(0.0, 1.0, 6)
    return tuple(
        Tick(at, f"{value:g}") for at, value in zip(_scale(values, 0, 1, start, end), values.round(1), strict=True)
    )


def _round_steps(highest: float) -> list[float]:
    """Three to six round values from 0 to at most `highest`."""
    raw = highest / 5
    unit = 10.0 ** np.floor(np.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    return [float(n * step) for n in range(int(highest / step + 1e-9) + 1)]
