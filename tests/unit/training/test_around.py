"""What lies around each patch, against loops."""

import itertools

import pytest
import torch

from training.transforms.around import extend, mean_around

GRIDS = [(1, 1), (1, 4), (2, 2), (3, 5), (8, 4)]


@pytest.mark.parametrize("grid", GRIDS)
def test_beyond_the_border_it_goes_on_as_at_the_border(grid: tuple[int, int]) -> None:
    rows, columns = grid
    plane = torch.randn(2, rows, columns, 3, generator=torch.Generator().manual_seed(0))
    found = extend(plane)
    assert found.shape == (2, rows + 2, columns + 2, 3)
    for row, column in itertools.product(range(rows + 2), range(columns + 2)):
        inside = plane[:, min(max(row - 1, 0), rows - 1), min(max(column - 1, 0), columns - 1)]
        assert torch.equal(found[:, row, column], inside)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_mean_of_nine(grid: tuple[int, int]) -> None:
    rows, columns = grid
    patches = torch.randn(2, rows * columns, 3, generator=torch.Generator().manual_seed(0))
    plane = extend(patches.view(2, rows, columns, 3))
    found = mean_around(patches, grid).view(2, rows, columns, 3)
    for row, column in itertools.product(range(rows), range(columns)):
        nine = plane[:, row : row + 3, column : column + 3].flatten(1, 2)
        assert torch.allclose(found[:, row, column], nine.mean(dim=1), atol=1e-6)
