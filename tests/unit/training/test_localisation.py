"""Composed pictures, and what a heatmap of them is worth."""

from itertools import product

import numpy as np
import pytest

from clicv2.imaging import Pixels
from training.classical import local_gradient_energy
from training.data.ratings import Floats
from training.localisation import (
    SMALLEST_SHARE,
    SOFTNESS,
    Mask,
    area_under_curve,
    busiest_pieces,
    cell_shares,
    compose,
    flat,
    localise,
    texture,
)

SIZE, GRID = (64, 96), (8, 12)


def slow_area(heatmap: Floats, busy: Mask) -> float:
    """Every pair of a busy and a flat cell, one by one."""
    rows, columns = heatmap.shape
    high, low = [], []
    for row, column in product(range(rows), range(columns)):
        height, width = busy.shape[0] // rows, busy.shape[1] // columns
        cell = busy[row * height : (row + 1) * height, column * width : (column + 1) * width]
        if cell.all():
            high.append(heatmap[row, column])
        elif not cell.any():
            low.append(heatmap[row, column])
    return float(np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in product(high, low)]))


@pytest.mark.parametrize("seed", range(5))
def test_area_under_the_curve_against_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    (picture,) = compose(1, SIZE, GRID, seed=seed)
    heatmap = cell_shares(picture.busy, GRID) + rng.normal(0, 1, GRID)
    heatmap = heatmap.round(1)  # with ties
    assert area_under_curve(heatmap, picture.busy) == pytest.approx(slow_area(heatmap, picture.busy))


def test_a_perfect_heatmap_a_constant_one_and_the_wrong_way_round() -> None:
    composed = compose(6, SIZE, GRID)
    truth = [cell_shares(picture.busy, GRID) for picture in composed]
    assert localise(truth, composed).auc.value == 1.0
    assert localise([np.zeros(GRID)] * 6, composed).auc.value == 0.5
    assert localise([-cells for cells in truth], composed).auc.value == 0.0
    assert localise(truth, composed).pictures == 6


def test_cells_that_a_border_crosses_do_not_count() -> None:
    busy = np.zeros((4, 8), dtype=np.bool_)
    busy[:, :3] = True  # the second of four columns of cells is half busy
    heatmap = np.array([[1.0, -9.0, 0.0, 0.0], [1.0, 9.0, 0.0, 0.0]])
    assert area_under_curve(heatmap, busy) == 1.0


def test_a_picture_of_one_kind_has_no_area() -> None:
    with pytest.raises(ValueError, match="both kinds"):
        area_under_curve(np.zeros((2, 2)), np.ones((4, 4), dtype=np.bool_))
    with pytest.raises(ValueError, match="does not divide"):
        area_under_curve(np.zeros((3, 2)), np.ones((4, 4), dtype=np.bool_))


def test_the_interval_is_over_pictures() -> None:
    composed = compose(30, SIZE, GRID)
    rng = np.random.default_rng(0)
    maps = [cell_shares(picture.busy, GRID) + rng.normal(0, 1, GRID) for picture in composed]
    found = localise(maps, composed).auc
    each = [area_under_curve(heatmap, picture.busy) for heatmap, picture in zip(maps, composed, strict=True)]
    assert found.value == pytest.approx(np.mean(each))
    half = 1.96 * np.std(each) / np.sqrt(30)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.2 * half)


@pytest.mark.parametrize("given", [False, True])
def test_the_truth_is_true(given: bool) -> None:
    """Busy cells have gradients, flat ones next to none, and there are enough of both."""
    size = (128, 192)
    pictures = [texture(size, np.random.default_rng(seed)) for seed in range(3)] if given else []
    for picture in compose(10, size, GRID, pictures=pictures, seed=1):
        assert picture.pixels.shape == (*size, 3)
        assert picture.pixels.dtype == np.uint8
        share, slope = cell_shares(picture.busy, GRID), local_gradient_energy(picture.pixels, GRID)
        assert min((share == 1.0).mean(), (share == 0.0).mean()) >= SMALLEST_SHARE
        touched = picture.busy.copy()  # also what has a busy pixel to the right or below, for it changes there
        touched[:, :-1] |= picture.busy[:, 1:]
        touched[:-1] |= picture.busy[1:]
        assert slope[cell_shares(touched, GRID) == 0.0].max() < 0.02
        assert slope[share == 1.0].min() > 0.03


def test_a_seed_determines_the_pictures() -> None:
    first, again, other = (compose(3, SIZE, GRID, seed=seed) for seed in (1, 1, 2))
    assert all((a.pixels == b.pixels).all() and (a.busy == b.busy).all() for a, b in zip(first, again, strict=True))
    assert any((a.pixels != b.pixels).any() for a, b in zip(first, other, strict=True))


def test_both_uniform_and_softly_shaded_flats_occur() -> None:
    made = [flat(SIZE, np.random.default_rng(seed)) for seed in range(20)]
    ranges = [int(np.ptp(pixels.reshape(-1, 3), axis=0).max()) for pixels in made]
    assert min(ranges) == 0
    assert 0 < max(ranges) <= SOFTNESS


def quartered(busy: list[bool]) -> Pixels:
    """A picture of 64 x 64 whose quarters are textures or black."""
    made = texture((64, 64), np.random.default_rng(0))
    for number, keep in enumerate(busy):
        if not keep:
            made[32 * (number // 2) :, 32 * (number % 2) :][:32, :32] = 0
    return made


def test_pieces_are_the_quarters_that_are_busy_throughout() -> None:
    pictures = [quartered([False, True, False, False]), *(quartered([False] * 4) for _ in range(2))]
    pictures[1][:, ::2] = 255  # stripes, busier ...
    pictures[1][16:32] = pictures[1][48:64] = 0  # ... but flat in half of its cells
    (piece,) = busiest_pieces(pictures)
    assert (piece == pictures[0][:32, 32:]).all()


def test_busy_regions_show_the_given_pictures() -> None:
    palette = np.array([[10, 200, 30], [240, 20, 130]], dtype=np.uint8)
    given = palette[np.random.default_rng(0).integers(0, 2, SIZE)]
    for picture in compose(4, SIZE, GRID, pictures=[given]):
        seen = np.unique(picture.pixels[picture.busy], axis=0)
        assert seen.tolist() == palette.tolist()


def test_a_grid_that_cannot_tell_regions_apart_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot tell"):
        compose(1, (16, 16), (1, 1))
