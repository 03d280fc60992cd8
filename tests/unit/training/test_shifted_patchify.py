"""Shifted patchify: two views whose patch grids are moved against each other."""

import numpy as np
import pytest
import torch

from training.draw import Draw
from training.transforms.shifted_patchify import DIRECTIONS, patchify, sample_shifts, shifted_patches, shifted_views


def numbered_canvas(count: int, height: int, width: int) -> torch.Tensor:
    """Every pixel carries its row, its column and its image's number, so a view tells where it was cut."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.stack([rows, columns, torch.full_like(rows, n)]) for n in range(count)]).float()


@pytest.mark.parametrize(("low", "high"), [(0, 0), (8, 8), (12, 24), (16, 40)])
def test_views_show_the_same_image_moved_by_the_shift(low: int, high: int) -> None:
    views = shifted_views(numbered_canvas(32, 112, 120), 64, low, high, Draw(1))
    moved = views.second - views.first
    for n, shift in enumerate(views.shifts):
        assert (moved[n, 0] == shift[0]).all()
        assert (moved[n, 1] == shift[1]).all()
        assert (views.first[n, 2] == n).all()
        assert (views.second[n, 2] == n).all()
        # contiguous pixels: a row further down is one row further in the canvas
        assert (views.first[n, 0].diff(dim=0) == 1).all()
        assert (views.first[n, 1].diff(dim=1) == 1).all()


@pytest.mark.parametrize(("low", "high"), [(0, 0), (8, 8), (12, 20)])
def test_shifted_patches_each_move_on_their_own(low: int, high: int) -> None:
    views = shifted_patches(numbered_canvas(8, 112, 120), 64, 16, low, high, Draw(1))
    moved = patchify(views.second - views.first, 16).reshape(8, 16, 256, 3)  # [N, L, pixels, C]
    expected = torch.cat([views.shifts, torch.zeros(8, 16, 1)], dim=2)  # the image's number does not change
    assert torch.equal(moved, expected.unsqueeze(2).expand_as(moved))
    assert (views.first[:, 0].diff(dim=1) == 1).all()
    if high > 0:
        assert len({tuple(s) for s in views.shifts[0].tolist()}) > 3


def test_shifted_patches_need_room_on_all_sides() -> None:
    shifted_patches(torch.zeros(1, 3, 80, 80), 64, 16, 8, 8, Draw(0))
    with pytest.raises(ValueError, match="no room"):
        shifted_patches(torch.zeros(1, 3, 80, 80), 64, 16, 8, 9, Draw(0))


def test_shifts_take_all_eight_directions_and_all_distances() -> None:
    shifts = sample_shifts(4000, 8, 12, Draw(0))
    assert {tuple(d) for d in shifts.sign().tolist()} == set(DIRECTIONS)
    distance = shifts.abs().amax(dim=1)
    assert set(distance.tolist()) == {8, 9, 10, 11, 12}
    diagonal = (shifts != 0).all(dim=1)
    assert (shifts[diagonal].abs()[:, 0] == shifts[diagonal].abs()[:, 1]).all()


def test_shifts_differ_between_the_images_of_a_batch() -> None:
    views = shifted_views(torch.zeros(64, 3, 112, 112), 64, 12, 24, Draw(0))
    assert len({tuple(shift) for shift in views.shifts.tolist()}) > 30


def test_first_views_cover_every_place_that_has_room() -> None:
    views = shifted_views(numbered_canvas(3000, 40, 40), 32, 4, 8, Draw(0))
    tops = {int(top) for top in views.first[:, 0, 0, 0]} | {int(top) for top in views.second[:, 0, 0, 0]}
    assert tops == set(range(9))


def test_a_seed_determines_the_views() -> None:
    canvas = torch.rand(4, 3, 100, 100)
    first, again = (shifted_views(canvas, 64, 8, 16, Draw(7)) for _ in range(2))
    assert torch.equal(first.second, again.second)


def test_a_canvas_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        shifted_views(torch.zeros(1, 3, 80, 100), 64, 12, 24, Draw(0))


@pytest.mark.parametrize(("low", "high"), [(-1, 3), (5, 4)])
def test_senseless_distances_are_refused(low: int, high: int) -> None:
    with pytest.raises(ValueError, match="low <= high"):
        sample_shifts(1, low, high, Draw(0))


@pytest.mark.parametrize(("height", "width", "patch"), [(4, 4, 2), (6, 9, 3), (8, 16, 4)])
def test_patchify_against_slices(height: int, width: int, patch: int) -> None:
    images = torch.arange(2 * 3 * height * width).reshape(2, 3, height, width)
    expected = np.stack(
        [
            [
                image[:, row : row + patch, column : column + patch].transpose(1, 2, 0).ravel()
                for row in range(0, height, patch)
                for column in range(0, width, patch)
            ]
            for image in images.numpy()
        ]
    )
    assert np.array_equal(patchify(images, patch).numpy(), expected)


def test_patchify_refuses_a_remainder() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        patchify(torch.zeros(1, 3, 10, 8), 4)
