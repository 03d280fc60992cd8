"""Geometry of small charts: data -> positions in a drawing, for a template to draw as SVG.

Drawn by the page itself and not by matplotlib, so that they take the page's colours, dark and light,
and stand one under another on a phone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from training.data.ratings import Floats

# Size of a chart and of the room for its labels, in the drawing's units; about pixels on a phone.
WIDTH, HEIGHT = 320, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 30
TICKS = 4
# Points of a line: more cannot be told apart at this size.
LINE_POINTS = 250


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values of low ... high to positions start ... end.

    Attributes:
        low, high: values at the ends; low < high.
        start, end: positions of those.
    """

    low: float
    high: float
    start: float
    end: float

    def place(self, values: Floats) -> Floats:
        """Positions [N] of values [N], rounded to a tenth; what lies outside sits at the end."""
        inside = np.clip(values, self.low, self.high)
        at = self.start + (inside - self.low) / (self.high - self.low) * (self.end - self.start)
        return np.asarray(at.round(1))

    def ticks(self) -> list[tuple[float, str]]:
        """Positions and labels of round values."""
        values = [float(v) for v in MaxNLocator(TICKS).tick_values(self.low, self.high)]
        # Values such as 0.30000000000000004 are meant to be round, and to lie inside.
        slack = 1e-9 * (self.high - self.low)
        shown = [v for v in values if self.low - slack <= v <= self.high + slack]
        return [(float(self.place(np.array([v]))[0]), f"{v:.6g}" if abs(v) > slack else "0") for v in shown]


@dataclass(frozen=True, slots=True)
class Dot:
    """A point that says what it is."""

    x: float
    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws.

    Attributes:
        title: above the chart.
        summary: for those who cannot see it.
        x, y: its axes; x_label, y_label: what they show.
        dots: of a scatter.
        faint, strong: lines as SVG's "x,y x,y ..."; empty for none.
    """

    title: str
    summary: str
    x: Axis
    y: Axis
    x_label: str
    y_label: str
    dots: tuple[Dot, ...] = ()
    faint: str = ""
    strong: str = ""


def axes(x: tuple[float, float], y: tuple[float, float]) -> tuple[Axis, Axis]:
    """Axes over these ranges; a range of one value is widened around it."""
    (x_low, x_high), (y_low, y_high) = widen(x), widen(y)
    return Axis(x_low, x_high, LEFT, WIDTH - RIGHT), Axis(y_low, y_high, HEIGHT - BOTTOM, TOP)


def widen(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    half = max(abs(low), 1.0) / 2
    return (low, high) if low < high else (low - half, high + half)


def scatter(
    title: str,
    summary: str,
    x: tuple[str, Floats, tuple[float, float]],
    y: tuple[str, Floats, tuple[float, float]],
    labels: Sequence[str],
    *,
    diagonal: bool,
) -> Chart:
    """A dot a pair of values.

    Args:
        x, y: what it is, the values [N], and the range that is shown.
        labels: [N] what each dot is.
        diagonal: whether to draw one, from corner to corner.
    """
    across, up = axes(x[2], y[2])
    places = zip(across.place(x[1]).tolist(), up.place(y[1]).tolist(), labels, strict=True)
    line = f"{across.start},{up.start} {across.end},{up.end}" if diagonal else ""
    return Chart(title, summary, across, up, x[0], y[0], tuple(Dot(*place) for place in places), faint=line)


def curve(
    title: str, summary: str, raw: tuple[Floats, Floats], smooth: tuple[Floats, Floats], y: tuple[float, float]
) -> Chart:
    """A measure over the steps of a run.

    Args:
        raw, smooth: steps and values, [N] each and [M] each.
        y: range that is shown.
    """
    across, up = axes((float(raw[0][0]), float(raw[0][-1])), y)
    return Chart(
        title, summary, across, up, "step", "", faint=_line(across, up, *raw), strong=_line(across, up, *smooth)
    )


def _line(across: Axis, up: Axis, x: Floats, y: Floats) -> str:
    kept = np.unique(np.linspace(0, len(x) - 1, LINE_POINTS).round().astype(np.int64))
    return " ".join(f"{a:g},{b:g}" for a, b in zip(across.place(x[kept]), up.place(y[kept]), strict=True))
