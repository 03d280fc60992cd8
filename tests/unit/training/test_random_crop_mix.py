"""Random crop and mix: what a mosaic shows, and where it comes from."""

import itertools
import math

import pytest
import torch

from training.draw import Draw
from training.transforms.augment import random_resized_crop
from training.transforms.random_crop_mix import SCALES, mosaic, random_crop, random_crop_mix


def resize(images: torch.Tensor, size: int, draw: Draw) -> torch.Tensor:
    return random_resized_crop(images, size, 0.2, 1.0, draw)


@pytest.mark.parametrize(("size", "divisor", "count"), list(itertools.product((16, 30), (1, 2, 3), (1, 5))))
def test_every_quadrant_comes_from_its_own_image(size: int, divisor: int, count: int) -> None:
    """Each image has grey levels that no other has."""
    own = torch.arange(count).view(-1, 1, 1, 1) / count
    images = own + torch.rand(count, 3, 24, 24) * 0.9 / count
    mixed = random_crop_mix(images, size, divisor, resize, Draw(size))
    assert mixed.shape == (count, 3, size, size)
    assert ((mixed * count).floor() / count - own).abs().max() < 1e-6


def test_two_quadrants_are_crops_and_two_are_augmented_copies() -> None:
    """The copies are made red; the crops stay as they are."""
    grey = torch.rand(40, 1, 24, 24).expand(-1, 3, -1, -1)

    def redden(images: torch.Tensor, size: int, draw: Draw) -> torch.Tensor:
        return resize(images, size, draw) * torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)

    mixed = random_crop_mix(grey, 16, 2, redden, Draw(0))
    quadrants = mixed.view(40, 3, 2, 8, 2, 8).permute(0, 2, 4, 1, 3, 5).reshape(40, 4, 3, 64)
    red = (quadrants[:, :, 1] == 0).all(dim=2)  # [40, 4]
    crop = ((quadrants - quadrants[:, :, :1]).abs() < 1e-6).all(dim=3).all(dim=2)
    assert (red ^ crop).all()
    assert red.sum(dim=1).tolist() == [2] * 40
    assert {tuple(row) for row in red.tolist()} == set(itertools.permutations((True, True, False, False)))


@pytest.mark.parametrize("divisor", [1, 2, 3])
def test_the_three_scales_occur_alike(divisor: int) -> None:
    """On a ramp, the difference between the first and last column tells how wide the crop was."""
    side = 96
    ramp = torch.arange(float(side)).view(1, 1, 1, -1).expand(600, 1, side, side)
    size = 8
    crops = random_crop(ramp, size, divisor, Draw(0))
    width = (crops[:, 0, 0, -2] - crops[:, 0, 0, 1]) / (size - 3) * size  # the border is bent by the antialiasing
    counts = [int(((width - side // (divisor * scale)).abs() < 0.5).sum()) for scale in SCALES]
    assert sum(counts) == 600
    assert min(counts) > 150


def test_a_crop_lies_anywhere_in_the_image() -> None:
    ramp = torch.arange(16.0).view(1, 1, 1, -1).expand(400, 1, 16, 16)
    crops = random_crop(ramp, 4, 2, Draw(0))
    left = crops[:, 0, 0, 0]
    assert (left.min(), crops.max()) == (0, 15)
    assert len(left.round().unique()) > 10


def test_the_draw_determines_the_mosaic() -> None:
    images = torch.rand(4, 3, 16, 16)
    first, again, other = (random_crop_mix(images, 16, 2, resize, Draw(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_two_processes_make_the_mosaics_of_one() -> None:
    images = torch.rand(6, 3, 16, 16)
    whole = random_crop_mix(images, 16, 2, resize, Draw(3))
    halves = [random_crop_mix(images[3 * rank :][:3], 16, 2, resize, Draw(3, rank, 2)) for rank in range(2)]
    assert torch.equal(whole, torch.cat(halves))


def test_all_orders_are_drawn() -> None:
    pieces = [torch.full((2000, 1, 1, 1), float(number)) for number in range(4)]
    laid = mosaic(pieces, Draw(0)).flatten(1).long()
    orders = [tuple(order) for order in laid.tolist()]
    assert set(orders) == set(itertools.permutations(range(4)))
    assert min(orders.count(order) for order in set(orders)) > 2000 / math.factorial(4) / 2


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="even side"):
        random_crop_mix(torch.zeros(1, 3, 16, 16), 15, 1, resize, Draw(0))
    for divisor in (0, 5):
        with pytest.raises(ValueError, match="no crop"):
            random_crop(torch.zeros(1, 3, 16, 16), 8, divisor, Draw(0))
