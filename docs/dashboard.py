"""Draw a dashboard's panels from what a Prometheus answers, as Grafana would lay them out.

    python -m docs.dashboard --prometheus http://127.0.0.1:9090 --board overview --minutes 60 --to overview.png
    PYTHONPATH=tests/support python -m docs.dashboard     # docs/dashboard.png, from a stack of its own and its faults

The second one takes two minutes. In its third part hostile uploads come, in its fourth the only worker is gone.
"""

import argparse
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import matplotlib as mpl
import numpy as np
import onnxruntime
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from clicv2 import contract
from clicv2.imaging import decode, to_model_input

DOCS = Path(__file__).parent
BOARDS = DOCS.parent / "docker/grafana/dashboards"
PART_S = 30
COLUMNS, CELL_IN = 24, (0.72, 0.36)  # Grafana's grid, and a cell's width and height in inches
COLOURS = {
    "green": "#3c7a3f",
    "blue": "#3a6ea5",
    "yellow": "#d9a400",
    "orange": "#c46a00",
    "red": "#b8322a",
    "dark-red": "#7a1712",
    "purple": "#7a4a8c",
}
GREY = "#55585f"
ROWS, COLUMNS_AT = (
    6,
    (0.01, 0.62, 0.7, 0.84, 0.92),
)  # of a table: what is seen without scrolling, and where columns begin

Curve = tuple[Mapping[str, str], list[tuple[float, float]]]
Instants = NDArray[np.float64]
Panel = Mapping[str, Any]


def draw(board: Mapping[str, Any], client: httpx.Client, start: float, end: float, window: str) -> Figure:
    """All panels of a dashboard; `window` stands for $__rate_interval."""
    panels = board["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) + 1
    with mpl.rc_context({"font.size": 7, "axes.titlesize": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(COLUMNS * CELL_IN[0], height * CELL_IN[1]))
        figure.text(0.01, 1 - 0.5 / height, board["title"], fontsize=13, weight="bold", va="center")
        for panel in panels:
            at = panel["gridPos"]
            left, bottom = at["x"] / COLUMNS, 1 - (at["y"] + 1 + at["h"]) / height
            if panel["type"] == "row":
                figure.text(left + 0.01, bottom + 0.5 / height, panel["title"], weight="bold", fontsize=9, va="center")
                continue
            # Room for the title above, and for curves the instants and the legend below and the numbers at the left.
            below, beside = (0.5, 0.01) if panel["type"] in ("stat", "table") else (1.6, 0.032)
            axes = figure.add_axes(
                (
                    left + beside,
                    bottom + below / height,
                    at["w"] / COLUMNS - beside - 0.01,
                    (at["h"] - below - 0.9) / height,
                )
            )
            axes.set_title(panel["title"], loc="left")
            found = [
                (
                    target["legendFormat"],
                    (_now if target.get("instant") else _curves)(
                        client, target["expr"].replace("$__rate_interval", window), start, end
                    ),
                )
                for target in panel["targets"]
            ]
            _KINDS[panel["type"]](axes, panel, found, np.arange(start, end, _step(start, end)))
    return figure


def _step(start: float, end: float) -> float:
    """Between the instants at which a curve is asked for, in whole milliseconds, as Prometheus has them."""
    return round(max(1.0, (end - start) / 300), 3)


def _curves(client: httpx.Client, expression: str, start: float, end: float) -> list[Curve]:
    query = {"query": expression, "start": start, "end": end, "step": _step(start, end)}
    answer = client.get("/api/v1/query_range", params=query).raise_for_status().json()
    return [(one["metric"], [(at, float(value)) for at, value in one["values"]]) for one in answer["data"]["result"]]


def _now(client: httpx.Client, expression: str, _: float, end: float) -> list[Curve]:
    """As of the end, in the order of the answer: a curve of one point each."""
    query = {"query": expression, "time": end}
    answer = client.get("/api/v1/query", params=query).raise_for_status().json()
    return [(one["metric"], [(one["value"][0], float(one["value"][1]))]) for one in answer["data"]["result"]]


def _filled(points: Sequence[tuple[float, float]], instants: Instants) -> Instants:
    """The values at all instants; nan where there is none, so that a curve has a gap there and all have one axis."""
    values = np.full(len(instants), math.nan)
    for at, value in points:
        values[np.argmin(np.abs(instants - at))] = value
    return values


def _over_time(axes: Axes, instants: Instants) -> Instants:
    """Minutes since the first; all panels have the same ones, so that what happened at once is one above the other."""
    minutes = (instants - instants[0]) / 60
    axes.set_xlim(0, minutes[-1])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} min"))
    return minutes


def _lines(axes: Axes, panel: Panel, found: Sequence[tuple[str, list[Curve]]], instants: Instants) -> None:
    config = panel["fieldConfig"]["defaults"]
    curves = [(_legend(legend, labels), points) for legend, some in found for labels, points in some]
    values = {name: _filled(points, instants) for name, points in curves}
    minutes = _over_time(axes, instants)
    if not values:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color=GREY, transform=axes.transAxes)
    elif config.get("custom", {}).get("stacking", {}).get("mode") == "normal":
        colours = [_colour(panel, name, f"C{number}") for number, name in enumerate(values)]
        stacked = np.nan_to_num(list(values.values()))
        axes.stackplot(minutes, stacked, labels=list(values), colors=colours, alpha=0.8)
    else:
        for number, (name, each) in enumerate(values.items()):
            axes.plot(minutes, each, label=name, color=_colour(panel, name, f"C{number}"), linewidth=1)
    for step in config.get("thresholds", {}).get("steps", ()):
        if step["value"] is not None and axes.get_ylim()[1] > step["value"] / 3:
            axes.axhline(step["value"], color=COLOURS["red"], linestyle="--", linewidth=0.8)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _written(value, config["unit"])))
    axes.grid(alpha=0.25)
    # What is 0 all the time is in Grafana's legend, and here would be most of it.
    drawn = dict(zip(values, axes.collections or axes.lines, strict=False))
    shown = {name: drawn[name] for name, each in values.items() if np.nan_to_num(each).any()}
    columns = 3 if panel["gridPos"]["w"] < COLUMNS / 2 else 5
    axes.legend(
        shown.values(), shown, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=columns, frameon=False, borderpad=0
    )


def _colour(panel: Panel, name: str, otherwise: str) -> str:
    for override in panel["fieldConfig"]["overrides"]:
        if re.search(override["matcher"]["options"].strip("/"), name):
            return COLOURS[override["properties"][0]["value"]["fixedColor"]]
    return otherwise


def _number(axes: Axes, panel: Panel, found: Sequence[tuple[str, list[Curve]]], _: Instants) -> None:
    config = panel["fieldConfig"]["defaults"]
    last = [(labels, points[-1][1]) for _, some in found for labels, points in some if math.isfinite(points[-1][1])]
    steps = config.get("thresholds", {}).get("steps", ())
    colour = GREY
    if last and steps:
        passed = [step for step in steps if step["value"] is None or last[0][1] >= step["value"]]
        colour = COLOURS[passed[-1]["color"]]
    axes.set_facecolor(colour)
    axes.set(xticks=[], yticks=[])
    named = _legend(found[0][0], last[0][0]) if last and found[0][0] else ""
    text = named or (_written(last[0][1], config["unit"]) if last else config["noValue"])
    axes.text(
        0.5, 0.5, text, ha="center", va="center", color="white", fontsize=9 if named else 15, transform=axes.transAxes
    )


def _table(axes: Axes, panel: Panel, found: Sequence[tuple[str, list[Curve]]], _: Instants) -> None:
    """Rows in the order of the answer, columns in that of the panel's transformation."""
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(ROWS + 1, 0))
    [order] = [step["options"] for step in panel["transformations"] if step["id"] == "organize"]
    mapped = {
        override["matcher"]["options"]: each["value"][0]["options"]
        for override in panel["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "mappings"
    }
    rows = [{**labels, "Value": points[-1][1]} for _, some in found for labels, points in some]
    for field, place in order["indexByName"].items():
        left, title = COLUMNS_AT[place], order["renameByName"][field]
        axes.text(left, 0.5, title, va="center", color=GREY)
        for number, row in enumerate(rows[:ROWS], 1):
            value = row.get(field, "")
            said = mapped.get(title, {}).get(value, {})
            text = said.get("text", value if isinstance(value, str) else _written(value, "s"))
            cell = axes.text(left, number + 0.5, text, va="center", fontsize=9)
            if "color" in said:
                cell.set(color="white", bbox={"facecolor": COLOURS[said["color"]], "edgecolor": "none", "pad": 2})
    if not rows:
        axes.text(COLUMNS_AT[0], 1.5, "No data", va="center")


def _density(axes: Axes, panel: Panel, found: Sequence[tuple[str, list[Curve]]], instants: Instants) -> None:
    all_bounds = {float(labels["le"]): _filled(points, instants) for _, some in found for labels, points in some}
    bounds = sorted(bound for bound in all_bounds if math.isfinite(bound))
    totals = np.array([all_bounds[bound] for bound in bounds])
    each = np.diff(np.nan_to_num(totals), axis=0, prepend=0)  # [bounds, instants]; buckets hold what is below them
    axes.pcolormesh(_over_time(axes, instants), bounds, each, cmap="inferno", shading="nearest")
    axes.set_ylabel(panel["title"].lower())


_KINDS = {"timeseries": _lines, "stat": _number, "table": _table, "heatmap": _density}


def _legend(template: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template)


def _written(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "–"
    if unit == "percentunit":
        return f"{100 * value:,.0f} %" if abs(value) >= 10 else f"{100 * value:.4g} %"
    if unit == "s" and 0 < abs(value) < 1:
        return f"{1000 * value:.3g} ms"
    if unit == "s" and value >= 60:
        return f"{value / 60:.3g} min" if value < 3600 else f"{value / 3600:.3g} h"
    if unit in ("bytes", "Bps"):
        power = min(4, int(math.log(abs(value), 1024))) if abs(value) >= 1 else 0
        return f"{value / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}{'/s' if unit == 'Bps' else ''}"
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{number}{ {'s': ' s', 'reqps': '/s', 'cps': '/s', 'ops': '/s', 'watt': ' W'}.get(unit, '') }"


def from_a_stack_of_its_own(board: Mapping[str, Any]) -> Figure:
    """Two quiet minutes are no picture: so there is load, then hostile uploads, and then the worker dies."""
    # Of the tests.
    import tiny_model
    from pictures import encode, noise
    from redis_server import redis_server
    from triton_server import install_configs, triton_server
    from watched import callers, watched

    pictures = [encode(noise(64, 64, seed) // (seed + 1), "PNG") for seed in range(12)]
    hostile = [picture[:200] for picture in pictures]
    with TemporaryDirectory() as folder:
        repository = install_configs(tiny_model.write(Path(folder), work=4))
        _refer_to(pictures, repository / "clicv2")
        with (
            redis_server() as redis,
            triton_server(repository) as triton,
            watched(repository, redis, triton, max_batch_size=8, backend_stall_s=5) as stack,
        ):
            start = time.time()
            with callers(stack.gateway, 3, *pictures, pause_s=0.1):
                time.sleep(2 * PART_S)
                with callers(stack.gateway, 3, *hostile, pause_s=0.1):
                    time.sleep(PART_S)
                stack.worker.kill()
                time.sleep(PART_S)
                figure = draw(board, stack.seen.client, start, time.time(), "10s")
            stack.fleet.worker()
    return figure


def _refer_to(pictures: Sequence[bytes], model: Path) -> None:
    """Make these the model's reference: else their scores are another kind of pictures', which is an alert."""
    version = contract.open_version(model)
    session = onnxruntime.InferenceSession(version.model_file)
    spec = version.manifest.preprocess
    pixels = np.stack([to_model_input(decode(picture, spec).image, spec) for picture in pictures])
    [scores] = session.run([contract.SCORE], {contract.INPUT: pixels})
    reference = tuple(np.quantile(scores, np.linspace(0, 1, 101)).tolist())
    replace(version.manifest, reference=reference).save(version.folder / contract.MANIFEST_FILE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", help="URL; without it a stack is started, loaded and broken")
    parser.add_argument("--board", default="overview", choices=sorted(path.stem for path in BOARDS.glob("*.json")))
    parser.add_argument("--minutes", type=float, default=60.0, help="up to now")
    parser.add_argument("--window", default="1m", help="of rates; four scrapes at least")
    parser.add_argument("--to", type=Path, default=DOCS / "dashboard.png")
    options = parser.parse_args()
    board = json.loads((BOARDS / f"{options.board}.json").read_text())
    if options.prometheus:
        now = time.time()
        with httpx.Client(base_url=options.prometheus, timeout=60) as client:
            figure = draw(board, client, now - 60 * options.minutes, now, options.window)
    else:
        figure = from_a_stack_of_its_own(board)
    figure.savefig(options.to, dpi=90)


if __name__ == "__main__":
    main()
