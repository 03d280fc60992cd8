"""InfoNCE against a queue, against the definition written with loops."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from training.losses.info_nce import info_nce_loss


def units(count: int, dim: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, dim), dim=1)


def slow_loss(
    queries: torch.Tensor, keys: torch.Tensor, negatives: torch.Tensor, temperature: float
) -> tuple[float, float]:
    losses, hits = [], []
    for query, key in zip(queries, keys, strict=True):
        own = math.exp(float(query @ key) / temperature)
        others = [math.exp(float(query @ negative) / temperature) for negative in negatives]
        losses.append(-math.log(own / (own + sum(others))))
        hits.append(own > max(others))
    return sum(losses) / len(losses), sum(hits) / len(hits)


@pytest.mark.parametrize(
    ("count", "queue", "dim", "temperature"), list(itertools.product((1, 4), (1, 9), (2, 5), (0.07, 0.2, 1.0)))
)
def test_against_the_slow_definition(count: int, queue: int, dim: int, temperature: float) -> None:
    torch.manual_seed(count + queue + dim)
    queries, keys, negatives = units(count, dim), units(count, dim), units(queue, dim)
    found = info_nce_loss(queries, keys, negatives, temperature=temperature)
    expected = slow_loss(queries, keys, negatives, temperature)
    assert (found.loss.item(), found.accuracy.item()) == pytest.approx(expected, abs=1e-5)


def test_one_key_for_all_images_has_none_right() -> None:
    """A collapsed encoder: every similarity is 1, and the loss that of guessing among them all."""
    same = F.normalize(torch.ones(1, 4), dim=1)
    contrast = info_nce_loss(same.expand(3, 4), same.expand(3, 4), same.expand(7, 4), temperature=0.1)
    assert contrast.accuracy == 0
    assert contrast.loss.item() == pytest.approx(math.log(8), abs=1e-4)


def test_autocast_changes_nothing() -> None:
    torch.manual_seed(0)
    queries, keys, negatives = units(4, 8), units(4, 8), units(16, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = info_nce_loss(queries, keys, negatives, temperature=0.07)
    assert torch.equal(inside.loss, info_nce_loss(queries, keys, negatives, temperature=0.07).loss)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        info_nce_loss(torch.zeros(2, 4), torch.zeros(3, 4), torch.zeros(5, 4), temperature=0.1)
    with pytest.raises(ValueError, match="do not fit"):
        info_nce_loss(torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(5, 3), temperature=0.1)
