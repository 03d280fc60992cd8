"""The measures of a run, as its metrics file has them."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.curves import METRICS, plot_curves, read_curves


def write(run: Path, losses: list[float]) -> None:
    lines = [json.dumps({"step": n + 1, "epoch": 0, "loss": loss, "rate": 0.5}) for n, loss in enumerate(losses)]
    (run / METRICS).write_text("\n".join(lines) + "\n")


def test_curves_are_what_was_written(tmp_path: Path) -> None:
    write(tmp_path, [3.0, 2.0, 1.0])
    loss, rate = read_curves(tmp_path)
    assert (loss.name, rate.name) == ("loss", "rate")
    assert (loss.step.tolist(), loss.value.tolist()) == ([1, 2, 3], [3, 2, 1])
    assert loss.smooth_value.tolist() == loss.value.tolist()  # too short to smooth
    assert rate.bounds == (0.5, 0.5)


def test_long_curves_are_smoothed_by_a_running_mean(tmp_path: Path) -> None:
    losses = np.random.default_rng(0).normal(size=550).tolist()
    write(tmp_path, losses)
    loss, _ = read_curves(tmp_path)
    expected = [np.mean(losses[end - 5 : end]) for end in range(5, 551)]
    assert loss.smooth_value == pytest.approx(expected)
    assert loss.smooth_step.tolist() == list(range(5, 551))


def test_a_pause_does_not_flatten_the_rest(tmp_path: Path) -> None:
    losses = [1.0 + 0.1 * (n % 2) for n in range(1000)]
    losses[500] = 1e6
    write(tmp_path, losses)
    low, high = read_curves(tmp_path)[0].bounds
    assert 0.9 < low < 1.0
    assert 1.1 < high < 1.2


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, [3.0, 2.0])
    with (tmp_path / METRICS).open("a") as stream:
        stream.write('{"step": 3, "los')
    assert read_curves(tmp_path)[0].step.tolist() == [1, 2]
    assert plot_curves(tmp_path).exists()


def test_without_metrics_there_are_no_curves(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_curves(tmp_path)
    (tmp_path / METRICS).write_text("")
    with pytest.raises(ValueError, match="empty"):
        read_curves(tmp_path)
