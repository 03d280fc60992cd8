"""Entropies of patches, against histograms counted one pixel at a time."""

import itertools
import math

import numpy as np
import pytest
import torch

from training.transforms.entropy import (
    FLAT_GRADIENT,
    MEASURES,
    TARGETS,
    cell_histograms,
    histogram_entropy,
    patch_entropies,
)


def slow_histogram(values: np.ndarray, bins: int, weights: np.ndarray | None = None) -> list[float]:
    histogram = [0.0] * bins
    for index in np.ndindex(values.shape):
        place = min(bins - 1, max(0, int(values[index] * bins)))
        histogram[place] += 1.0 if weights is None else float(weights[index])
    return histogram


def slow_entropy(histogram: list[float]) -> float:
    total = sum(histogram)
    return -sum(h / total * math.log2(h / total) for h in histogram if h > 0)


@pytest.mark.parametrize(("bins", "cell", "weighted"), list(itertools.product((2, 12, 64), (2, 4, 8), (False, True))))
def test_cells_against_counting(bins: int, cell: int, weighted: bool) -> None:
    rng = np.random.default_rng(bins * 10 + cell)
    values = rng.uniform(-0.1, 1.1, (2, 8, 16)).astype(np.float32)
    weights = rng.uniform(0.1, 1.0, values.shape).astype(np.float32) if weighted else None
    histograms = cell_histograms(
        torch.from_numpy(values), bins, cell, None if weights is None else torch.from_numpy(weights)
    )
    entropies = histogram_entropy(histograms, cell * cell)
    for n, row, column in np.ndindex(tuple(entropies.shape)):
        window = (n, slice(row * cell, (row + 1) * cell), slice(column * cell, (column + 1) * cell))
        slow = slow_histogram(values[window], bins, None if weights is None else weights[window])
        assert histograms[n, :, row, column].tolist() == pytest.approx(slow, abs=1e-4)
        expected = slow_entropy(slow) / math.log2(min(bins, cell * cell))
        assert entropies[n, row, column].item() == pytest.approx(expected, abs=1e-5)


def named(images: torch.Tensor, patch: int = 16) -> dict[str, torch.Tensor]:
    return dict(zip(TARGETS, patch_entropies(images, patch).unbind(2), strict=True))


def test_there_are_twelve_in_three_windows_all_between_zero_and_one() -> None:
    entropies = patch_entropies(torch.rand(3, 3, 32, 48), 16)
    assert len(MEASURES) == 12
    assert entropies.shape == (3, 6, len(TARGETS)) == (3, 6, 36)
    assert entropies.min() >= 0
    assert entropies.max() <= 1


def test_a_flat_patch_has_none() -> None:
    assert patch_entropies(torch.full((1, 3, 16, 16), 0.4), 16).abs().max() < 1e-6


def test_a_patch_half_black_half_white_has_one_bit() -> None:
    images = torch.zeros(1, 3, 16, 16)
    images[..., 8:] = 0.999
    found = named(images)
    assert found["grey@1"].item() == pytest.approx(1 / 6, abs=1e-5)  # of log2(64) = 6 bits
    assert found["grey_coarse_bins@1"].item() == pytest.approx(1 / 4, abs=1e-5)
    assert found["grey_cells@1"].item() == pytest.approx(0.0, abs=1e-5)  # each 8-pixel cell is flat
    assert found["red@1"].item() == pytest.approx(1 / 4, abs=1e-5)
    assert found["red_green@1"].item() == pytest.approx(0.0, abs=1e-5)
    assert found["gradient_orientation@1"].item() == pytest.approx(0.0, abs=1e-5)  # all edges point one way


def test_many_flat_patches_of_many_colours_are_complex_together() -> None:
    greys = torch.linspace(0, 0.99, 64).reshape(1, 1, 8, 8)
    found = named(torch.nn.functional.interpolate(greys, scale_factor=16).repeat(1, 3, 1, 1))
    assert found["grey@1"].abs().max() < 1e-6
    assert found["grey@whole"][0].tolist() == pytest.approx([1.0] * 64, abs=1e-5)  # 64 greys fill 64 bins
    inner = found["grey@3"].reshape(8, 8)[1:-1, 1:-1]
    assert inner.flatten().tolist() == pytest.approx([math.log2(9) / 6] * 36, abs=1e-5)
    corner = found["grey@3"][0, 0].item()  # what lies outside the view does not count
    assert corner == pytest.approx(math.log2(4) / 6, abs=1e-5)


def test_colour_without_luma_shows_in_the_opponent_channels() -> None:
    images = torch.full((1, 3, 16, 16), 0.5)
    images[:, 0, :, 8:] += 0.1 / 0.299
    images[:, 1, :, 8:] -= 0.1 / 0.587
    found = named(images)
    assert found["grey_coarse_bins@1"].item() < 0.02
    assert found["red_green@1"].item() == pytest.approx(1 / 6, abs=1e-5)


def test_noise_below_the_flat_gradient_has_no_orientation() -> None:
    images = 0.5 + (torch.rand(1, 3, 16, 16) - 0.5) * FLAT_GRADIENT / 2
    assert named(images)["gradient_orientation@1"].item() == 0.0


def test_patches_come_in_rows() -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[..., :16, 16:] = torch.rand(1, 3, 16, 16)
    assert named(images)["grey@1"].argmax().item() == 1


def test_an_odd_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        patch_entropies(torch.zeros(1, 3, 18, 18), 6)
