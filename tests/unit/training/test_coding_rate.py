"""Coding rates, against their definition by determinants and on patches of which one knows them."""

import itertools
import math

import numpy as np
import pytest
import torch

from training.transforms.code_length import FEATURES
from training.transforms.code_length import code_lengths as of_images
from training.transforms.coding_rate import DISTORTION, NAMES, WINDOW_STEP, coding_rates, local_and_whole, patch_rates


def slow_rate(vectors: np.ndarray) -> float:
    """[M, F], by the definition, in double precision."""
    apart = vectors - vectors.mean(axis=0)
    _, log_determinant = np.linalg.slogdet(np.eye(vectors.shape[1]) + apart.T @ apart / (len(vectors) * DISTORTION))
    return 0.5 * float(log_determinant) / vectors.shape[1]


def code_lengths(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """As they are: between 0 and 8 bits, and strongly correlated."""
    return rng.random((*shape, 1)) * 5.0 + rng.random((*shape, len(FEATURES))) * rng.random(len(FEATURES)) * 3.0


@pytest.mark.parametrize("count", [1, 2, 9, 64, 484])
def test_a_picture_against_the_definition(count: int) -> None:
    pictures = code_lengths(np.random.default_rng(count), 3, count)
    pictures[1] = pictures[1, :1]  # all patches alike
    found = local_and_whole(torch.from_numpy(pictures).float(), (1, count))[1].numpy()
    expected = [[slow_rate(patches[:, 9 * scale : 9 * scale + 9]) for scale in range(4)] for patches in pictures]
    assert found == pytest.approx(np.array(expected), abs=1e-4)
    assert found[1] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 5), (8, 4)])
def test_windows_against_loops(grid: tuple[int, int]) -> None:
    rows, columns = grid
    lengths = code_lengths(np.random.default_rng(rows), 2, rows * columns).astype(np.float32)
    found = local_and_whole(torch.from_numpy(lengths), grid)[0].view(2, (rows + 1) // 2, -1, 5).numpy()
    every = patch_rates(torch.from_numpy(lengths), grid).view(2, rows, columns, 2).numpy()
    plane = lengths.reshape(2, rows, columns, -1)
    for n, row, column in itertools.product(range(2), range(rows), range(columns)):
        around = np.stack(
            [
                plane[n, min(max(row + i, 0), rows - 1), min(max(column + j, 0), columns - 1)]
                for i, j in itertools.product((-1, 0, 1), repeat=2)
            ]
        )
        expected = [slow_rate(around[:, 9 * scale : 9 * scale + 9]) for scale in range(4)] + [slow_rate(around)]
        assert every[n, row, column] == pytest.approx(expected[:2], abs=1e-4)
        if row % WINDOW_STEP == column % WINDOW_STEP == 0:
            assert found[n, row // WINDOW_STEP, column // WINDOW_STEP] == pytest.approx(expected, abs=1e-4)


def test_they_are_the_mean_of_the_local_ones_their_deviation_and_the_whole() -> None:
    lengths = torch.from_numpy(code_lengths(np.random.default_rng(0), 2, 24)).float()
    found = coding_rates(lengths, (4, 6)).numpy()
    assert found.shape == (2, len(NAMES)) == (2, 14)
    local, whole = (each.numpy() for each in local_and_whole(lengths, (4, 6)))
    assert found[:, :5] == pytest.approx(local.mean(axis=1), abs=1e-5)
    assert found[:, 5:10] == pytest.approx(local.std(axis=1), abs=1e-5)
    assert found[:, 10:] == pytest.approx(whole, abs=1e-6)


def test_of_patches_are_those_of_the_scales_that_tell_neighbours_apart() -> None:
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    lengths = of_images(images, 16)
    found = patch_rates(lengths, (6, 6)).view(6, 6, 2)[::WINDOW_STEP, ::WINDOW_STEP].flatten(0, 1)
    assert torch.allclose(found, local_and_whole(lengths, (6, 6))[0][0, :, :2], atol=1e-5)
    # Blocks of 32 and 64 pixels: 2 x 2 patches, and 4 x 4, have the same one.
    coarse = lengths.view(1, 6, 6, -1)[:, :, :, 18:]
    assert torch.equal(coarse[:, 0, 0, :9], coarse[:, 1, 1, :9])
    assert torch.equal(coarse[:, 0, 0], coarse[:, 0, 1])
    assert not torch.equal(lengths[0, 0, :18], lengths[0, 1, :18])


def test_further_apart_costs_more_by_the_logarithm() -> None:
    spread = torch.randn(1, 4096, 36, generator=torch.Generator().manual_seed(0)) * 10.0
    near, far = (local_and_whole(lengths, (64, 64))[1] for lengths in (spread, 2.0 * spread))
    further = far - near
    assert further.numpy() == pytest.approx(np.full((1, 4), math.log(2.0)), abs=1e-3)


def test_the_order_of_the_patches_matters_in_windows_and_not_in_the_whole() -> None:
    """Two kinds of patches, in two halves or in a chequered pattern."""
    rows = torch.arange(8)
    kinds = torch.randn(2, 36, generator=torch.Generator().manual_seed(0))
    halves = kinds[(rows >= 4).long()[:, None].expand(8, 8)].view(1, 64, 36)
    chequered = kinds[(rows[:, None] + rows) % 2].view(1, 64, 36)
    calm, restless = (local_and_whole(lengths, (8, 8)) for lengths in (halves, chequered))
    assert restless[0].mean() > 2 * calm[0].mean()
    assert torch.allclose(calm[1], restless[1], atol=1e-5)


def test_a_flat_picture_has_none() -> None:
    lengths = torch.zeros(1, 16, 36)
    assert coding_rates(lengths, (4, 4)).abs().max() == 0.0
