"""Junctions of regions, against a slow count and on pictures where one can count by eye."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter

from training.transforms.junctions import LEVELS, MANY, MEDIAN, SHRINK, junction_density


def slow_density(image: np.ndarray, patch: int) -> np.ndarray:
    """[3, H, W] in [0, 1] -> [L], one quad of pixels at a time."""
    _, height, width = image.shape
    small = image.reshape(3, height // SHRINK, SHRINK, width // SHRINK, SHRINK).mean(axis=(2, 4))
    smooth = np.stack([median_filter(channel, MEDIAN, mode="nearest") for channel in small])
    levels = np.clip(np.floor(smooth * LEVELS), 0, LEVELS - 1).astype(int)
    rows, columns = small.shape[1:]
    side = patch // SHRINK
    counts = np.zeros((rows // side, columns // side))
    for y, x in np.ndindex(rows, columns):
        quad = itertools.product((y, min(y + 1, rows - 1)), (x, min(x + 1, columns - 1)))
        colours = {tuple(levels[:, i, j]) for i, j in quad}
        counts[y // side, x // side] += {3: 0.5, 4: 1.0}.get(len(colours), 0.0)
    return np.minimum(np.log1p(counts) / math.log1p(MANY), 1.0).ravel()


@pytest.mark.parametrize(("height", "width", "patch"), [(32, 32, 16), (64, 96, 16), (64, 32, 8), (48, 80, 16)])
def test_against_the_slow_count(height: int, width: int, patch: int) -> None:
    rng = np.random.default_rng(height)
    images = rng.integers(0, 256, (3, 3, height, width)).astype(np.float32) / 255.0
    images[1] = 0.5 + (images[1] - 0.5) * 1.8  # out of [0, 1] by a little, as colour jitter leaves it
    images[2] = np.kron(rng.random((3, height // 8, width // 8)), np.ones((8, 8)))  # regions of some size
    found = junction_density(torch.from_numpy(images), patch)
    for image, density in zip(images, found.numpy(), strict=True):
        np.testing.assert_allclose(density, slow_density(image, patch), atol=1e-5)


def picture(corners: tuple[float, float, float, float]) -> torch.Tensor:
    """One patch of 64 pixels in four fields that meet in its middle: above from left to right, then below."""
    fields = torch.tensor(corners).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    return fields.repeat_interleave(32, dim=2).repeat_interleave(32, dim=3)


@pytest.mark.parametrize(
    ("corners", "junctions"),
    [
        ((0.5, 0.5, 0.5, 0.5), 0.0),  # nothing
        ((0.1, 0.9, 0.1, 0.9), 0.0),  # an edge
        ((0.1, 0.1, 0.5, 0.9), 0.5),  # a T
        ((0.1, 0.3, 0.6, 0.9), 1.0),  # a cross
        ((0.50, 0.51, 0.52, 0.53), 0.0),  # too little of a difference to be regions
    ],
)
def test_by_eye(corners: tuple[float, float, float, float], junctions: float) -> None:
    density = junction_density(picture(corners), 64)
    assert density.item() == pytest.approx(math.log1p(junctions) / math.log1p(MANY), abs=1e-6)


def test_texture_is_not_things() -> None:
    """Fine noise around one grey is a busy texture with entropies and code lengths, but it has no regions."""
    noise = 0.5625 + 0.2 * (torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5)
    assert junction_density(noise, 16).max() == 0
