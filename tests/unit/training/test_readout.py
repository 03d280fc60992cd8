"""What a readout makes of features, patch by patch."""

import itertools

import pytest
import torch

from training.models.backbone import Features
from training.models.computed import Computed
from training.models.readout import Kind, Readout, variety
from training.models.similarity import Similarity


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 5), (8, 4)])
def test_variety_against_loops(grid: tuple[int, int]) -> None:
    rows, columns = grid
    features = torch.randn(2, rows * columns, 3, generator=torch.Generator().manual_seed(0))
    found = variety(features, grid).view(2, rows, columns, 3)
    plane = features.view(2, rows, columns, 3)
    for n, row, column in itertools.product(range(2), range(rows), range(columns)):
        around = [
            plane[n, min(max(row + i, 0), rows - 1), min(max(column + j, 0), columns - 1)]
            for i, j in itertools.product((-1, 0, 1), repeat=2)
        ]
        expected = (plane[n, row, column] - sum(around) / 9).abs()
        assert torch.allclose(found[n, row, column], expected, atol=1e-6)


def test_variety_moves_all_cells_alike_and_their_mean_as_fitted() -> None:
    """So that a flat patch is not marked for what lies beside it."""
    grid = (4, 4)
    features = Features((), (torch.randn(2, 16, 3, generator=torch.Generator().manual_seed(0)),), grid)
    computed = Computed(torch.zeros(2, 3, 64, 64))
    weight = torch.tensor([0.5, -1.0, 2.0, 3.0, -0.5, 1.5])
    readout = Readout((0,), torch.zeros(3), torch.ones(3), weight, 0.25, "variety")
    cells = readout(computed, features)
    assert torch.allclose(
        cells.mean(dim=1), (readout.design(computed, features) @ weight).mean(dim=1) + 0.25, atol=1e-5
    )
    apart = cells - features.last @ weight[:3]
    assert torch.allclose(apart, apart.mean(dim=1, keepdim=True).expand_as(apart), atol=1e-5)
    assert apart.std(dim=0).max() > 0.01  # it differs from picture to picture


@pytest.mark.parametrize(("kind", "terms"), [("linear", 1), ("quadratic", 2), ("variety", 2)])
def test_with_similarity_cells_differ_by_the_pattern_and_average_to_the_score(kind: Kind, terms: int) -> None:
    draw = torch.Generator().manual_seed(0)
    features = Features((), (torch.randn(2, 16, 3, generator=draw),), (4, 4))
    computed = Computed(torch.zeros(2, 3, 64, 64))
    weight, pattern = torch.randn(2, 3 * terms, generator=draw)
    similarity = Similarity(
        torch.randn(3 * terms, 2, generator=draw),
        torch.zeros(2),
        torch.randn(4, 2, generator=draw),
        torch.randn(4, generator=draw),
    )
    readout = Readout((0,), torch.zeros(3), torch.ones(3), weight, 0.25, kind, similarity, pattern)
    design = readout.design(computed, features)
    pooled = design.mean(dim=1)
    cells = readout(computed, features)
    assert torch.allclose(cells.mean(dim=1), pooled @ weight + 0.25 + similarity(pooled), atol=1e-5)
    shown = design.shape[2] if kind == "quadratic" else 3  # variety is of no cell
    own = design[:, :, :shown] @ pattern[:shown]
    apart = cells - own
    assert torch.allclose(apart, apart.mean(dim=1, keepdim=True).expand_as(apart), atol=1e-5)


def test_what_is_the_same_everywhere_has_no_variety_however_strong() -> None:
    assert variety(torch.full((1, 12, 2), 7.0), (3, 4)).abs().max() < 1e-6


def test_many_different_patches_have_more_than_the_same_patches_sorted() -> None:
    """The mean, which a linear readout sees, cannot tell the two apart."""
    values = torch.arange(64.0)
    mixed = values[torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    apart = [variety(v.view(1, 64, 1), (8, 8)).mean() for v in (mixed, values)]
    assert apart[0] > 4 * apart[1]
