"""Patch-wise contrastive loss, against the definition written with loops."""

import itertools
import math

import pytest
import torch

from training.losses.patch_contrastive import patch_contrastive_loss


def slow_loss(
    queries: torch.Tensor,
    keys: torch.Tensor,
    grid: tuple[int, int],
    temperature: float,
    radius: int,
    chosen: torch.Tensor,
) -> tuple[float, float]:
    n, length, _ = keys.shape
    losses, hits = [], []
    for image, patch in itertools.product(range(n), range(length)):
        if not chosen[image, patch]:
            continue
        similarity = {}
        for other, place in itertools.product(range(n), range(length)):
            apart = max(abs(patch // grid[1] - place // grid[1]), abs(patch % grid[1] - place % grid[1]))
            if other == image and 0 < apart <= radius:
                continue
            similarity[other, place] = (
                torch.cosine_similarity(queries[image, patch], keys[other, place], dim=0).item() / temperature
            )
        total = sum(math.exp(s) for s in similarity.values())
        losses.append(-math.log(math.exp(similarity[image, patch]) / total))
        hits.append(max(similarity, key=similarity.__getitem__) == (image, patch))
    return sum(losses) / len(losses), sum(hits) / len(hits)


@pytest.mark.parametrize(
    ("n", "grid", "temperature", "radius", "share"),
    list(itertools.product((1, 3), ((2, 3), (4, 4)), (0.1, 1.0), (0, 1), (1.0, 0.5))),
)
def test_against_the_slow_definition(
    n: int, grid: tuple[int, int], temperature: float, radius: int, share: float
) -> None:
    torch.manual_seed(n + radius)
    length = grid[0] * grid[1]
    queries, keys = torch.randn(n, length, 5), torch.randn(n, length, 5)
    chosen = torch.rand(n, length) < share
    chosen[0, 0] = True
    found = patch_contrastive_loss(
        queries,
        keys,
        grid,
        temperature=temperature,
        exclude_radius=radius,
        chosen=None if share == 1.0 else chosen,
    )
    expected = slow_loss(queries, keys, grid, temperature, radius, chosen | (share == 1.0))
    assert (found.loss.item(), found.accuracy.item()) == pytest.approx(expected, abs=1e-5)


def test_matching_views_cost_less_than_unrelated_ones() -> None:
    keys = torch.randn(4, 9, 16)
    match = patch_contrastive_loss(keys, keys, (3, 3), temperature=0.1)
    unrelated = patch_contrastive_loss(torch.randn(4, 9, 16), keys, (3, 3), temperature=0.1)
    assert match.accuracy == 1.0
    assert match.loss < unrelated.loss


def test_position_alone_cannot_solve_it() -> None:
    """Features that only say where a patch is are the same in every image: one in N at best."""
    position = torch.eye(9).expand(4, 9, 9)
    contrast = patch_contrastive_loss(position, position, (3, 3), temperature=0.01)
    assert contrast.loss.item() == pytest.approx(math.log(4), abs=1e-3)


def test_the_image_alone_cannot_solve_it() -> None:
    """Features that only say which image it is are the same at every position: one in L at best."""
    image = torch.eye(4)[:, None, :].expand(4, 9, 4)
    contrast = patch_contrastive_loss(image, image, (3, 3), temperature=0.01)
    assert contrast.loss.item() == pytest.approx(math.log(9), abs=1e-3)


def test_without_a_query_there_is_no_loss_and_no_nan() -> None:
    queries = torch.randn(2, 4, 3, requires_grad=True)
    nobody = torch.zeros(2, 4, dtype=torch.bool)
    contrast = patch_contrastive_loss(queries, torch.randn(2, 4, 3), (2, 2), temperature=0.1, chosen=nobody)
    contrast.loss.backward()
    assert contrast.loss == contrast.accuracy == 0
    assert queries.grad is not None
    assert not queries.grad.any()


def test_gradients_reach_both_views() -> None:
    queries, keys = (torch.randn(2, 4, 3, requires_grad=True) for _ in range(2))
    patch_contrastive_loss(queries, keys, (2, 2), temperature=0.2).loss.backward()
    assert queries.grad is not None
    assert keys.grad is not None
    assert queries.grad.abs().sum() > 0
    assert keys.grad.abs().sum() > 0


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        patch_contrastive_loss(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), (3, 2), temperature=0.1)
