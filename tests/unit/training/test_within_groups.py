"""The loss of fine-tuning, against a loop over pairs of images of one group."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from training.losses.within_groups import residual_variance


def slow_residual_variance(predicted: Tensor, target: Tensor, groups: Tensor) -> float:
    """Half the mean squared difference of residuals over the pairs of each group, averaged over groups with a pair."""
    residual = (target - predicted).tolist()
    variances = []
    for group in sorted(set(groups.tolist())):
        pairs = list(combinations([r for r, g in zip(residual, groups.tolist(), strict=True) if g == group], 2))
        if pairs:
            variances.append(sum((a - b) ** 2 / 2 for a, b in pairs) / len(pairs))
    return sum(variances) / max(1, len(variances))


def random_batch(seed: int, count: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(groups, (count,), generator=generator)
    return torch.randn(count, generator=generator), torch.randn(count, generator=generator), drawn


@pytest.mark.parametrize("count", [4, 32])
@pytest.mark.parametrize("groups", [1, 3, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_against_pairs(count: int, groups: int, seed: int) -> None:
    batch = random_batch(seed, count, groups)
    assert float(residual_variance(*batch)) == pytest.approx(slow_residual_variance(*batch), rel=1e-5)


def test_a_groups_offset_changes_nothing() -> None:
    predicted, target, groups = random_batch(0, 32, 4)
    offset = torch.tensor([3.0, -10.0, 0.5, 100.0])
    expected = residual_variance(predicted, target, groups)
    assert float(residual_variance(predicted, target + offset[groups], groups)) == pytest.approx(
        float(expected), rel=1e-4
    )
    assert float(residual_variance(predicted + 7.0, target, groups)) == pytest.approx(float(expected), rel=1e-4)


def test_alone_in_its_group_an_image_says_nothing() -> None:
    predicted = torch.randn(3, requires_grad=True)
    loss = residual_variance(predicted, torch.zeros(3), torch.tensor([0, 1, 2]))
    loss.backward()
    assert predicted.grad is not None
    assert (float(loss.detach()), predicted.grad.tolist()) == (0.0, [0.0, 0.0, 0.0])


def test_small_batches_average_to_the_loss_over_whole_groups() -> None:
    """Unbiased, though a batch may hold no more than two images of a group."""
    predicted, target, _ = random_batch(2, 60, 1)
    groups = torch.zeros(60, dtype=torch.int64)
    rng = np.random.default_rng(0)
    for size in (2, 5):
        drawn = [torch.from_numpy(rng.permutation(60)[:size]) for _ in range(4000)]
        small = [float(residual_variance(predicted[d], target[d], groups[d])) for d in drawn]
        whole = float(residual_variance(predicted, target, groups))
        assert np.mean(small) == pytest.approx(whole, abs=4 * np.std(small) / np.sqrt(len(small)))
        assert np.std(small) / np.sqrt(len(small)) < 0.03 * whole
