"""Colour jitter, flips and resizing: what leaves complexity about as it is."""

import pytest
import torch

from training.transforms.augment import jitter, luma, random_flips, random_resize


def test_luma_of_primaries() -> None:
    primaries = torch.eye(3).reshape(3, 3, 1, 1)
    assert luma(primaries).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])


def test_jitter_of_strength_zero_changes_nothing() -> None:
    images = torch.rand(4, 3, 8, 8)
    assert torch.allclose(jitter(images, 0.0, 0.0, torch.Generator().manual_seed(0)), images, atol=1e-6)


def test_jitter_differs_between_images_and_stays_in_range() -> None:
    images = torch.rand(1, 3, 8, 8).repeat(16, 1, 1, 1)
    changed = jitter(images, 0.5, 0.0, torch.Generator().manual_seed(0))
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert len({round(float(image.mean()), 4) for image in changed}) == 16


def test_jitter_keeps_grey_grey() -> None:
    grey = torch.rand(4, 1, 8, 8).repeat(1, 3, 1, 1)
    changed = jitter(grey, 0.5, 0.0, torch.Generator().manual_seed(0))
    assert torch.allclose(changed[:, 0], changed[:, 2], atol=1e-6)


def test_jitter_refuses_to_invert() -> None:
    with pytest.raises(ValueError, match="strength"):
        jitter(torch.zeros(1, 3, 2, 2), 1.0, 0.0, torch.Generator())


def test_flips_draw_four_versions_alike() -> None:
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    flipped = random_flips(image.repeat(2000, 1, 1, 1), torch.Generator().manual_seed(0))
    versions = [image, image.flip(-1), image.transpose(-1, -2), image.flip(-1).transpose(-1, -2)]
    counts = [int((flipped == version).all(dim=(1, 2, 3)).sum()) for version in versions]
    assert sum(counts) == 2000
    assert min(counts) > 400


def test_the_grey_share_of_images_loses_its_colours() -> None:
    changed = jitter(torch.rand(400, 3, 4, 4), 0.1, 0.25, torch.Generator().manual_seed(0))
    grey = (changed - changed.mean(dim=1, keepdim=True)).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert 0.15 < grey.float().mean() < 0.35


def test_resizing_covers_the_range_but_keeps_room_for_the_views() -> None:
    generator = torch.Generator().manual_seed(0)
    sides = {random_resize(torch.zeros(1, 3, 40, 40), 0.5, 2.0, 30, generator).shape[2] for _ in range(300)}
    assert min(sides) == 30
    assert max(sides) > 75


def test_resizing_keeps_the_picture() -> None:
    ramp = torch.linspace(0, 1, 40).expand(1, 3, 40, 40)
    for seed in range(4):
        resized = random_resize(ramp, 0.6, 1.8, 1, torch.Generator().manual_seed(seed))
        side = resized.shape[3]
        expected = ((torch.arange(side) + 0.5) * 40 / side - 0.5) / 39
        assert (resized[0, 0, side // 2] - expected).abs()[2:-2].max() < 0.02


def test_senseless_scale_factors_are_refused() -> None:
    with pytest.raises(ValueError, match="scale factors"):
        random_resize(torch.zeros(1, 3, 4, 4), 1.2, 1.0, 1, torch.Generator())
