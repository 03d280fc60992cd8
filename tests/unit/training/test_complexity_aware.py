"""Global entropy and the complexity-aware loss, against loops."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from training.losses.complexity_aware import complexity_aware_loss, correlation, global_entropy


def slow_entropy(image: np.ndarray) -> float:
    """Of uint8 RGB [H, W, 3]."""
    bins = Counter(min(255, int(sum(pixel / 255 for pixel in rgb) / 3 * 256)) for rgb in image.reshape(-1, 3).tolist())
    pixels = sum(bins.values())
    return -sum(count / pixels * math.log(count / pixels) for count in bins.values()) / math.log(256)


@pytest.mark.parametrize(("height", "width", "levels"), list(itertools.product((5, 16), (8, 20), (2, 50, 256))))
def test_entropy_against_the_slow_definition(height: int, width: int, levels: int) -> None:
    rng = np.random.default_rng(height + width)
    images = rng.integers(0, levels, (3, height, width, 3), dtype=np.uint8)
    found = global_entropy(torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255.0)
    assert found.tolist() == pytest.approx([slow_entropy(image) for image in images], abs=1e-5)


def test_entropy_of_one_level_and_of_all() -> None:
    flat = torch.full((1, 3, 16, 16), 1.0)
    every = (torch.arange(256.0) / 255.0).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert global_entropy(torch.cat([flat, every])).tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_loss_against_the_slow_definition(count: int) -> None:
    energy, entropy = torch.rand(count), torch.rand(count)
    expected = sum((e - h) ** 2 for e, h in zip(energy.tolist(), entropy.tolist(), strict=True)) / count
    assert complexity_aware_loss(energy, entropy).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_correlation_is_pearsons(seed: int) -> None:
    pair = np.random.default_rng(seed).random((2, 20)).astype(np.float32)
    found = correlation(torch.from_numpy(pair[0]), torch.from_numpy(pair[1]))
    assert found.item() == pytest.approx(np.corrcoef(pair)[0, 1], abs=1e-5)


def test_correlation_with_what_is_constant_is_none() -> None:
    assert correlation(torch.ones(4), torch.rand(4)) == 0
