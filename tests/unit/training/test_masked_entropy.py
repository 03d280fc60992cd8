"""Masked entropy modelling's loss, against loops."""

import numpy as np
import pytest
import torch

from training.losses.masked_entropy import explained_variance, family_mean, masked_entropy_loss


@pytest.mark.parametrize("visible_weight", [0.0, 0.3])
def test_against_the_slow_definition(visible_weight: float) -> None:
    rng = np.random.default_rng(0)
    predicted, target = rng.random((3, 5, 4)).astype(np.float32), rng.random((3, 5, 4)).astype(np.float32)
    mask = rng.random((3, 5)) < 0.4
    squared = (predicted - target) ** 2
    errors = (squared[:, :, :3].mean(axis=2) + squared[:, :, 3]) / 2  # two families, of three measures and of one
    removed = [errors[place] for place in np.ndindex(mask.shape) if mask[place]]
    kept = [errors[place] for place in np.ndindex(mask.shape) if not mask[place]]
    found = masked_entropy_loss(
        torch.from_numpy(predicted),
        torch.from_numpy(target),
        torch.from_numpy(mask),
        (3, 1),
        visible_weight=visible_weight,
    )
    assert found.item() == pytest.approx(np.mean(removed) + visible_weight * np.mean(kept), abs=1e-6)


def test_kept_patches_have_no_say_without_a_weight() -> None:
    predicted = torch.rand(1, 4, 2, requires_grad=True)
    mask = torch.tensor([[True, False, False, True]])
    masked_entropy_loss(predicted, torch.rand(1, 4, 2), mask, (2,)).backward()
    assert predicted.grad is not None
    assert (predicted.grad[0].abs().sum(dim=1) > 0).tolist() == [True, False, False, True]


def test_nothing_masked_costs_nothing() -> None:
    assert masked_entropy_loss(torch.rand(1, 4, 2), torch.rand(1, 4, 2), torch.zeros(1, 4, dtype=torch.bool), (2,)) == 0


def test_explained_variance_of_the_truth_and_of_the_mean() -> None:
    target = torch.rand(2, 8, 3)
    mask = torch.ones(2, 8, dtype=torch.bool)
    assert explained_variance(target, target, mask).item() == pytest.approx(1.0)
    mean = target.flatten(0, 1).mean(dim=0).expand_as(target)
    assert explained_variance(mean, target, mask).item() == pytest.approx(0.0, abs=1e-6)


def test_families_have_the_same_say_however_large() -> None:
    values = torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert family_mean(values, (3, 1)).tolist() == [0.5, 0.5]
    assert family_mean(values, (4,)).tolist() == [0.75, 0.25]
