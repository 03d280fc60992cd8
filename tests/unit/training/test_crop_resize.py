"""Cutting and resizing, against torch's own antialiased resizing of each crop."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from training.transforms.crop_resize import crop_resize

BOXES = [(0, 0, 20, 30), (3, 5, 7, 11), (19, 29, 1, 1), (0, 10, 20, 5), (4, 0, 16, 16), (2, 2, 8, 24)]


@pytest.mark.parametrize(("size", "channels"), list(itertools.product((1, 4, 8, 13, 40), (1, 3))))
def test_against_resizing_each_crop_alone(size: int, channels: int) -> None:
    torch.manual_seed(size)
    images = torch.rand(len(BOXES), channels, 20, 30)
    found = crop_resize(images, torch.tensor(BOXES), size)
    for image, (top, left, height, width), result in zip(images, BOXES, found, strict=True):
        crop = image[None, :, top : top + height, left : left + width]
        expected = F.interpolate(crop, (size, size), mode="bilinear", antialias=True, align_corners=False)
        assert torch.allclose(result, expected[0], atol=1e-5)


def test_autocast_does_not_round_the_pixels() -> None:
    images, boxes = torch.rand(1, 3, 16, 16), torch.tensor([[1, 2, 9, 9]])
    with torch.autocast("cpu", torch.bfloat16):
        inside = crop_resize(images, boxes, 8)
    assert torch.equal(inside, crop_resize(images, boxes, 8))
