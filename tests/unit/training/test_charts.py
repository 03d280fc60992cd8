"""Where things lie in a drawing."""

import numpy as np
import pytest

from training.charts import BOTTOM, HEIGHT, LEFT, LINE_POINTS, RIGHT, TOP, WIDTH, Axis, axes, curve, scatter


def test_an_axis_maps_its_ends_and_what_lies_between() -> None:
    axis = Axis(10.0, 20.0, 100.0, 0.0)
    assert axis.place(np.array([10.0, 15.0, 20.0])).tolist() == [100.0, 50.0, 0.0]
    assert axis.place(np.array([0.0, 99.0])).tolist() == [100.0, 0.0]  # never outside the drawing


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, 100.0), (-0.7, 0.3), (1e-7, 9e-4), (1.0, 12345.0), (3.1, 3.2)])
def test_ticks_are_round_inside_and_where_they_say(bounds: tuple[float, float]) -> None:
    axis = Axis(*bounds, 0.0, 1000.0)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 7
    for position, label in ticks:
        assert bounds[0] - 1e-12 <= float(label) <= bounds[1] + 1e-12
        assert len(label) <= 7
        assert axis.place(np.array([float(label)]))[0] == pytest.approx(position, abs=0.11)


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_a_range_of_one_value_is_widened_around_it(value: float) -> None:
    across, _ = axes((value, value), (0.0, 1.0))
    assert across.low < value < across.high
    assert across.place(np.array([value]))[0] == pytest.approx((LEFT + WIDTH - RIGHT) / 2)


def test_a_scatter_puts_dots_with_names_where_they_belong() -> None:
    x, y = np.array([0.0, 100.0, 50.0]), np.array([0.0, 1.0, 0.25])
    chart = scatter("t", "s", ("rating", x, (0, 100)), ("score", y, (0, 1)), ["a", "b", "c"], diagonal=True)
    bottom = HEIGHT - BOTTOM
    assert [(dot.x, dot.y, dot.label) for dot in chart.dots] == [
        (LEFT, bottom, "a"),
        (WIDTH - RIGHT, TOP, "b"),
        ((LEFT + WIDTH - RIGHT) / 2, bottom - 0.25 * (bottom - TOP), "c"),
    ]
    assert chart.faint == f"{LEFT},{bottom} {WIDTH - RIGHT},{TOP}"
    assert not scatter("t", "s", ("x", x, (0, 100)), ("y", y, (0, 1)), ["a", "b", "c"], diagonal=False).faint


def test_a_long_curve_is_thinned_but_keeps_its_ends() -> None:
    step = np.arange(1.0, 5001.0)
    chart = curve("loss", "s", (step, step), (step[:3], step[:3]), (1.0, 5000.0))
    points = chart.faint.split()
    assert len(points) == LINE_POINTS
    assert points[0] == f"{LEFT},{HEIGHT - BOTTOM}"
    assert points[-1] == f"{WIDTH - RIGHT},{TOP}"
    assert len(chart.strong.split()) == 3
