"""Code lengths of patches, against SciPy's DCT taken block by block."""

import itertools

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from training.transforms.code_length import BANDS, FEATURES, SHRINKS, STEP, code_lengths


def slow_code_lengths(image: np.ndarray, patch: int) -> np.ndarray:
    """[3, H, W] -> [h, w, 36], one block and one coefficient at a time."""
    red, green, blue = image.astype(np.float64)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    channels = (grey, (blue - grey) * 0.564, (red - grey) * 0.713)
    rows, columns = grey.shape[0] // patch, grey.shape[1] // patch
    answer = np.zeros((rows, columns, len(FEATURES)))
    for (s, shrink), (c, channel) in itertools.product(enumerate(SHRINKS), enumerate(channels)):
        small = channel.reshape(channel.shape[0] // shrink, shrink, -1, shrink).mean(axis=(1, 3))
        for band, (low, high) in enumerate(BANDS):
            small = np.pad(small, [(0, -side % 8) for side in small.shape], mode="edge")
            bits = np.zeros((small.shape[0] // 8, small.shape[1] // 8))
            for i, j in np.ndindex(bits.shape):
                coefficients = dctn(small[8 * i : 8 * i + 8, 8 * j : 8 * j + 8], norm="ortho")
                costs = [
                    np.log2(1 + abs(coefficients[u, v]) / STEP) for u, v in np.ndindex(8, 8) if low <= u + v <= high
                ]
                bits[i, j] = np.mean(costs)
            pixels = np.kron(bits, np.ones((8 * shrink, 8 * shrink)))[: rows * patch, : columns * patch]
            cells = pixels.reshape(rows, patch, columns, patch).mean(axis=(1, 3))
            answer[:, :, 9 * s + 3 * c + band] = cells
    return answer


@pytest.mark.parametrize(("height", "width", "patch"), [(32, 32, 16), (64, 96, 16), (80, 112, 16), (64, 32, 8)])
def test_against_scipy(height: int, width: int, patch: int) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    found = code_lengths(images, patch)
    for image, lengths in zip(images.numpy(), found.numpy(), strict=True):
        assert lengths.reshape(height // patch, width // patch, len(FEATURES)) == pytest.approx(
            slow_code_lengths(image, patch), abs=1e-4
        )


def test_flat_colour_costs_nothing() -> None:
    images = torch.tensor([0.2, 0.7, 0.4]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    assert code_lengths(images, 16).abs().max() < 1e-3


def test_grey_pictures_cost_nothing_in_the_colour_channels() -> None:
    lengths = code_lengths(torch.rand(1, 1, 32, 32).expand(1, 3, 32, 32), 16).reshape(1, 4, len(SHRINKS), 3, len(BANDS))
    assert lengths[:, :, :, 1:].abs().max() < 1e-4
    assert lengths[:, :, :, 0].min() > 0.1


def test_coarse_texture_costs_low_frequencies_and_fine_texture_high_ones() -> None:
    x = torch.arange(64.0)
    coarse, fine = (0.5 + 0.4 * torch.cos(x * frequency) for frequency in (0.4, 2.6))
    waves = torch.stack([wave.expand(3, 64, 64) for wave in (coarse, fine)])
    low, _, high = code_lengths(waves, 16).mean(dim=1)[:, :3].unbind(dim=1)  # luma at full resolution
    assert low[0] > low[1]
    assert high[1] > 2 * high[0]
