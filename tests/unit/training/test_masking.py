"""Random masks: 1 is removed, 0 is kept."""

import pytest
import torch

from training.draw import Draw
from training.transforms.masking import random_mask


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.6, 0.99])
def test_one_ratio_removes_the_same_share_of_every_image(ratio: float) -> None:
    mask = random_mask(16, 64, ratio, ratio, Draw(0))
    assert mask.dtype == torch.bool
    assert (mask.sum(dim=1) == round(ratio * 64)).all()


def test_a_range_of_ratios_is_used_from_end_to_end() -> None:
    removed = random_mask(2000, 64, 0.25, 0.5, Draw(0)).sum(dim=1)
    assert set(removed.tolist()) == set(range(16, 33))


def test_images_lose_different_patches_and_every_place_is_hit_alike() -> None:
    mask = random_mask(4000, 16, 0.25, 0.25, Draw(0))
    assert len({tuple(row) for row in mask.tolist()}) > 1000
    # binomial with p = .25 over 4000 draws: a standard deviation of .007
    assert (mask.float().mean(dim=0) - 0.25).abs().max() < 0.035


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.5), (0.5, 1.0), (0.6, 0.5)])
def test_senseless_ratios_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="mask ratios"):
        random_mask(1, 4, low, high, Draw(0))
