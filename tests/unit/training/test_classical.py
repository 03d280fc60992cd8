"""The classical measures, where their values are known."""

from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from clicv2.imaging import Pixels
from training import classical
from training.classical import (
    EDGE,
    MEASURES,
    baselines,
    colourfulness,
    colours,
    edge_density,
    gradient_energy,
    grey_entropy,
    jpeg_size,
    local_gradient_energy,
    mean_z,
    measure_all,
    ridge_on,
)


def grey(levels: npt.ArrayLike) -> Pixels:
    """[H, W] -> [H, W, 3]."""
    return np.repeat(np.asarray(levels, dtype=np.uint8)[:, :, None], 3, axis=2)


def noise(side: int, seed: int, contrast: int = 255) -> Pixels:
    return np.random.default_rng(seed).integers(0, contrast + 1, (side, side, 3), dtype=np.uint8)


def ramp(step: int, height: int = 32, width: int = 32) -> Pixels:
    """Grey that rises by `step` from a column to the next."""
    return grey(np.tile(step * np.arange(width), (height, 1)))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_one_grey_has_no_complexity(measure: str, level: int) -> None:
    few_bytes = 3 / (48 * 32)  # in which JPEGs of two greys may differ
    assert MEASURES[measure](grey(np.full((48, 32), level))) == pytest.approx(0.0, abs=few_bytes)


@pytest.mark.parametrize("measure", MEASURES)
def test_noise_is_above_a_soft_ramp(measure: str) -> None:
    assert MEASURES[measure](noise(64, 0)) > MEASURES[measure](ramp(1, 64, 64)) >= 0.0


def test_jpeg_size_is_what_pillow_writes_beyond_a_flat_picture() -> None:
    pixels = noise(40, seed=1)
    sizes = []
    for picture in (pixels, grey(np.full((40, 40), 128))):
        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=75, subsampling=2)
        sizes.append(len(buffer.getvalue()))
    assert jpeg_size(pixels) == (sizes[0] - sizes[1]) / 1600
    assert jpeg_size(pixels) > jpeg_size(noise(40, seed=1, contrast=60)) > 0


@pytest.mark.parametrize("levels", [1, 2, 4, 16, 256])
def test_equally_frequent_greys_have_the_entropy_of_their_number(levels: int) -> None:
    values = np.arange(16 * 16).reshape(16, 16) % levels
    assert grey_entropy(grey(values)) == pytest.approx(np.log2(levels))


def test_entropy_of_unequal_shares() -> None:
    values = np.zeros((8, 8))
    values[:2] = 200  # a quarter
    assert grey_entropy(grey(values)) == pytest.approx(0.25 * 2 + 0.75 * np.log2(4 / 3))


def test_a_step_has_edges_on_its_two_columns() -> None:
    values = np.zeros((20, 50))
    values[:, 25:] = 255
    assert edge_density(grey(values)) == pytest.approx(2 / 50)
    assert edge_density(grey(values.T)) == pytest.approx(2 / 50)


@pytest.mark.parametrize(("step", "expected"), [(int(EDGE * 255), 0.0), (int(EDGE * 255) + 1, 12 / 14)])
def test_a_slope_is_an_edge_where_it_is_steep(step: int, expected: float) -> None:
    # The picture is mirrored at its border, where the slope is therefore half as steep.
    assert edge_density(ramp(step, 8, 14)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((255, 0, 0), 0.3 * np.hypot(255, 127.5)),
        ((0, 0, 255), 0.3 * 255),
        ((255, 255, 0), 0.3 * 255),
        ((90, 90, 90), 0.0),
    ],
)
def test_colourfulness_of_one_colour(colour: tuple[int, int, int], expected: float) -> None:
    assert colourfulness(np.full((4, 4, 3), colour, dtype=np.uint8)) == pytest.approx(expected)


def test_colourfulness_of_two_colours() -> None:
    """Half red, half green: red - green is +-255, yellow - blue is 127.5 throughout."""
    pixels = np.zeros((2, 8, 3), dtype=np.uint8)
    pixels[:, :4, 0] = 255
    pixels[:, 4:, 1] = 255
    assert colourfulness(pixels) == pytest.approx(255 + 0.3 * 127.5)


@pytest.mark.parametrize("count", [1, 2, 8, 32])
def test_colours_are_counted(count: int) -> None:
    pixels = np.zeros((4, 32, 3), dtype=np.uint8)
    pixels[:, :, 1] = 8 * (np.arange(32) % count)
    assert colours(pixels) == pytest.approx(np.log2(count))


def test_colours_that_nearly_agree_are_one() -> None:
    pixels = np.zeros((4, 32, 3), dtype=np.uint8)
    pixels[:, :, 1] = np.arange(32) % 8
    assert colours(pixels) == 0.0


@pytest.mark.parametrize("step", [1, 3, 7])
def test_gradients_of_a_ramp(step: int) -> None:
    """A ramp is `step` steep, `2 step` at half the resolution, and so on; the last column changes no further."""
    slopes = [shrink * step / 255 * np.sqrt((32 // shrink - 1) / (32 // shrink)) for shrink in (1, 2, 4, 8)]
    assert gradient_energy(ramp(step)) == pytest.approx(np.mean(slopes))
    assert gradient_energy(ramp(step).swapaxes(0, 1)) == pytest.approx(np.mean(slopes))


def test_gradients_of_a_picture_smaller_than_the_coarsest_square() -> None:
    assert gradient_energy(ramp(10, 4, 4)) > 0


def test_local_gradients_are_where_they_are() -> None:
    pixels = grey(np.full((32, 32), 100))
    pixels[16:, :16] = noise(16, seed=0)
    found = local_gradient_energy(pixels, (2, 2))
    assert found.argmax() == 2
    assert found[0, 1] == found[1, 1] == 0.0
    assert found[0, 0] < found[1, 0]  # the last row above the noise changes downwards


def test_measures_of_many_are_those_of_each() -> None:
    pictures = [noise(16, 0), ramp(3, 16, 16)]
    measured = measure_all(iter(pictures))
    assert measured.shape == (2, len(MEASURES))
    assert measured[1].tolist() == [function(pictures[1]) for function in MEASURES.values()]


def test_mean_z_scores_weigh_every_measure_alike() -> None:
    measured = np.array([[0.0, 1000.0, 5.0], [1.0, 3000.0, 5.0], [2.0, 2000.0, 5.0]])
    deviation = np.sqrt(2 / 3)
    expected = np.array([-1 - 1, 0 + 1, 1 + 0]) / deviation / 3  # a measure that never varies says nothing
    assert mean_z(measured) == pytest.approx(expected)


def test_the_ridge_finds_what_tells_complexity_and_is_not_fooled_by_noise() -> None:
    rng = np.random.default_rng(0)
    measured = rng.normal(size=(200, 6)) * [1, 50, 1, 1, 1, 0]
    groups = np.array(["a", "b"] * 100)
    rated = measured[:, 1] + 30 * measured[:, 2] ** 2 + np.where(groups == "a", 500, 0)
    predicted = ridge_on(measured, rated, groups)
    assert min(np.corrcoef(predicted[groups == g], rated[groups == g])[0, 1] for g in "ab") > 0.95
    shuffled = rng.permutation(rated)
    assert abs(np.corrcoef(ridge_on(measured, shuffled, np.array(["a"] * 200)), shuffled)[0, 1]) < 0.2


def test_baselines_are_the_measures_and_their_combinations() -> None:
    measured = np.random.default_rng(0).normal(size=(40, len(MEASURES)))
    found = baselines(measured, measured[:, 0], np.array(["a", "b"] * 20))
    assert list(found) == [*MEASURES, classical.MEAN_Z, classical.RIDGE]
    assert found["jpeg_size"].tolist() == measured[:, 0].tolist()
    assert {values.shape for values in found.values()} == {(40,)}
