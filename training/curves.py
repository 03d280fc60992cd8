"""Training curves: one panel a measure of the metrics file, raw and smoothed."""

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

METRICS = "metrics.jsonl"
CURVES = "curves.png"
_NOT_MEASURED = frozenset({"step", "epoch"})
_COLUMNS = 3
_SMOOTHED_POINTS = 100


def plot_curves(run: Path) -> Path:
    """Draw the metrics of a run into its folder; returns the picture's path.

    Raises FileNotFoundError without a metrics file, ValueError when it is empty.
    """
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    if not lines:
        raise ValueError(f"{run / METRICS} is empty")
    names = [name for name in lines[0] if name not in _NOT_MEASURED]
    step = np.array([line["step"] for line in lines])
    rows = -(-len(names) // _COLUMNS)
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        figure = Figure(figsize=(4 * _COLUMNS, 2.4 * rows), layout="constrained")
        panels = figure.subplots(rows, _COLUMNS, squeeze=False).flat
        for name, panel in zip(names, panels, strict=False):
            values = np.array([line[name] for line in lines])
            panel.plot(step, values, color="0.8", linewidth=0.6)
            window = max(1, len(values) // _SMOOTHED_POINTS)
            smooth = np.convolve(values, np.ones(window) / window, mode="valid")
            panel.plot(step[window - 1 :], smooth, color="#31688e", linewidth=1.4)
            # A few slow steps (a pause of the machine) must not flatten the rest of the curve.
            low, high = np.quantile(values, [0.002, 0.998])
            if high > low:
                panel.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
            panel.set_title(name)
            panel.set_xlabel("step")
        for panel in list(panels):
            panel.set_axis_off()
        figure.savefig(run / CURVES, dpi=110)
    return run / CURVES
