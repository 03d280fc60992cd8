"""Training curves: the measures of a run's metrics file, raw and smoothed."""

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

METRICS = "metrics.jsonl"
CURVES = "curves.png"
_NOT_MEASURED = frozenset({"step", "epoch"})
_COLUMNS = 3
_SMOOTHED_POINTS = 100
# A few slow steps (a pause of the machine) must not flatten the rest of the curve.
_SHOWN = (0.002, 0.998)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """One measure over a run.

    Attributes:
        name: of the measure.
        step, value: [N] as written.
        smooth_step, smooth_value: [M] a running mean, at the last step of each window.
        bounds: lowest and highest value worth showing; equal when nothing varies.
    """

    name: str
    step: Floats
    value: Floats
    smooth_step: Floats
    smooth_value: Floats
    bounds: tuple[float, float]


def read_curves(run: Path) -> list[Curve]:
    """The measures of a run, in the order of its metrics file.

    Raises FileNotFoundError without a metrics file, ValueError when it is empty.
    """
    lines = []
    for line in (run / METRICS).read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # the line that a kill cut short, or that is being written
            break
    if not lines:
        raise ValueError(f"{run / METRICS} is empty")
    step = np.array([line["step"] for line in lines], dtype=np.float64)
    window = max(1, len(step) // _SMOOTHED_POINTS)
    curves = []
    for name in lines[0]:
        if name in _NOT_MEASURED:
            continue
        value = np.array([line[name] for line in lines], dtype=np.float64)
        smooth = np.convolve(value, np.ones(window) / window, mode="valid")
        low, high = np.quantile(value, _SHOWN)
        margin = 0.05 * (high - low)
        bounds = (float(low - margin), float(high + margin))
        curves.append(Curve(name, step, value, step[window - 1 :], smooth, bounds))
    return curves


def plot_curves(run: Path) -> Path:
    """Draw the metrics of a run into its folder, a panel a measure; returns the picture's path.

    Raises FileNotFoundError without a metrics file, ValueError when it is empty.
    """
    curves = read_curves(run)
    rows = -(-len(curves) // _COLUMNS)
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        figure = Figure(figsize=(4 * _COLUMNS, 2.4 * rows), layout="constrained")
        panels = figure.subplots(rows, _COLUMNS, squeeze=False).flat
        for curve, panel in zip(curves, panels, strict=False):
            panel.plot(curve.step, curve.value, color="0.8", linewidth=0.6)
            panel.plot(curve.smooth_step, curve.smooth_value, color="#31688e", linewidth=1.4)
            if curve.bounds[0] < curve.bounds[1]:
                panel.set_ylim(*curve.bounds)
            panel.set_title(curve.name)
            panel.set_xlabel("step")
        for panel in list(panels):
            panel.set_axis_off()
        figure.savefig(run / CURVES, dpi=110)
    return run / CURVES
