"""Colour jitter, flips and resizing: what leaves complexity about as it is."""

import colorsys
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from training.draw import Draw
from training.transforms.augment import (
    colour_jitter,
    jitter,
    luma,
    random_blur,
    random_boxes,
    random_flips,
    random_grey,
    random_mirror,
    random_resize,
    random_resized_crop,
)


def test_luma_of_primaries() -> None:
    primaries = torch.eye(3).reshape(3, 3, 1, 1)
    assert luma(primaries).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])


def test_jitter_of_strength_zero_changes_nothing() -> None:
    images = torch.rand(4, 3, 8, 8)
    assert torch.allclose(jitter(images, 0.0, 0.0, Draw(0)), images, atol=1e-6)


def test_jitter_differs_between_images_and_stays_in_range() -> None:
    images = torch.rand(1, 3, 8, 8).repeat(16, 1, 1, 1)
    changed = jitter(images, 0.5, 0.0, Draw(0))
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert len({round(float(image.mean()), 4) for image in changed}) == 16


def test_jitter_keeps_grey_grey() -> None:
    grey = torch.rand(4, 1, 8, 8).repeat(1, 3, 1, 1)
    changed = jitter(grey, 0.5, 0.0, Draw(0))
    assert torch.allclose(changed[:, 0], changed[:, 2], atol=1e-6)


def test_jitter_refuses_to_invert() -> None:
    with pytest.raises(ValueError, match="strength"):
        jitter(torch.zeros(1, 3, 2, 2), 1.0, 0.0, Draw(0))


def test_flips_draw_four_versions_alike() -> None:
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    flipped = random_flips(image.repeat(2000, 1, 1, 1), Draw(0))
    versions = [image, image.flip(-1), image.transpose(-1, -2), image.flip(-1).transpose(-1, -2)]
    counts = [int((flipped == version).all(dim=(1, 2, 3)).sum()) for version in versions]
    assert sum(counts) == 2000
    assert min(counts) > 400


def test_the_grey_share_of_images_loses_its_colours() -> None:
    changed = jitter(torch.rand(400, 3, 4, 4), 0.1, 0.25, Draw(0))
    grey = (changed - changed.mean(dim=1, keepdim=True)).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert 0.15 < grey.float().mean() < 0.35


def test_resizing_covers_the_range_but_keeps_room_for_the_views() -> None:
    generator = Draw(0)
    sides = {random_resize(torch.zeros(1, 3, 40, 40), 0.5, 2.0, 30, generator).shape[2] for _ in range(300)}
    assert min(sides) == 30
    assert max(sides) > 75


def test_resizing_keeps_the_picture() -> None:
    ramp = torch.linspace(0, 1, 40).expand(1, 3, 40, 40)
    for seed in range(4):
        resized = random_resize(ramp, 0.6, 1.8, 1, Draw(seed))
        side = resized.shape[3]
        expected = ((torch.arange(side) + 0.5) * 40 / side - 0.5) / 39
        assert (resized[0, 0, side // 2] - expected).abs()[2:-2].max() < 0.02


def test_senseless_scale_factors_are_refused() -> None:
    with pytest.raises(ValueError, match="scale factors"):
        random_resize(torch.zeros(1, 3, 4, 4), 1.2, 1.0, 1, Draw(0))


@pytest.mark.parametrize(("low", "high"), [(0.2, 1.0), (0.5, 0.6), (1.0, 1.0)])
def test_a_resized_crop_has_the_area_and_the_shape_it_should(low: float, high: float) -> None:
    """Two ramps tell a crop's height and width."""
    side = 60.0
    ramp = torch.arange(side).expand(int(side), -1)
    images = torch.stack([ramp.T, ramp, ramp]).expand(400, -1, -1, -1)
    crops = random_resized_crop(images, 10, low, high, Draw(0))
    height = (crops[:, 0, -2, 5] - crops[:, 0, 1, 5]) / 7 * 10  # the border is bent by the antialiasing
    width = (crops[:, 1, 5, -2] - crops[:, 1, 5, 1]) / 7 * 10
    uncut = (height < side - 1) & (width < side - 1)
    area, shape = (height * width / side**2)[uncut], (width / height)[uncut]
    assert ((area > low - 0.04) & (area < high + 0.04)).all()
    assert ((shape > 0.72) & (shape < 1.39)).all()
    if low < high:
        assert area.max() - area.min() > 0.8 * (min(high, 0.75 + 0.25 * low) - low)
        assert (shape.min(), shape.max()) == (pytest.approx(0.75, abs=0.05), pytest.approx(1.33, abs=0.06))


def test_boxes_reach_every_place_and_none_beyond() -> None:
    drawn = torch.tensor(list(itertools.product((0.0, 0.5, 1 - 2**-24), repeat=2)))
    for height, width in itertools.product((1, 4, 9, 129), repeat=2):
        boxes = random_boxes(torch.tensor([[height, width]]).expand(9, 2), 129, 129, drawn)
        assert (boxes[0, :2].tolist(), boxes[-1, :2].tolist()) == ([0, 0], [129 - height, 129 - width])
        assert (boxes[:, 2:] == torch.tensor([height, width])).all()


@pytest.mark.parametrize("hue", [0.1, 0.5])
def test_the_hue_turns_as_in_the_standard_library(hue: float) -> None:
    colours = torch.rand(50, 3, 1, 1)
    changed = colour_jitter(colours, 0.0, hue, 1.0, Draw(0)).flatten(1).tolist()
    turns = []
    for before, after in zip(colours.flatten(1).tolist(), changed, strict=True):
        (h, s, v), (turned, s_after, v_after) = colorsys.rgb_to_hsv(*before), colorsys.rgb_to_hsv(*after)
        assert (s_after, v_after) == pytest.approx((s, v), abs=1e-4)
        turns.append((turned - h + 0.5) % 1.0 - 0.5)
    assert max(map(abs, turns)) <= hue + 1e-4
    assert max(turns) - min(turns) > 1.5 * hue


def test_only_a_share_of_the_images_is_changed() -> None:
    images = torch.rand(400, 3, 16, 16)
    changes = {
        "jitter": lambda share: colour_jitter(images, 0.4, 0.1, share, Draw(0)),
        "grey": lambda share: random_grey(images, share, Draw(0)),
        "blur": lambda share: random_blur(images, 0.5, 1.0, share, Draw(0)),
    }
    for name, change in changes.items():
        assert torch.equal(change(0.0), images), name
        for share in (0.3, 1.0):
            changed = (change(share) != images).flatten(1).any(dim=1).float().mean().item()
            assert changed == pytest.approx(share, abs=0.08), name


def test_grey_is_the_luma_in_every_channel() -> None:
    images = torch.rand(3, 3, 4, 4)
    assert torch.allclose(random_grey(images, 1.0, Draw(0)), luma(images).unsqueeze(1).expand(-1, 3, -1, -1))


@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0])
def test_blur_is_the_gaussian_of_its_width(sigma: float) -> None:
    image = torch.rand(1, 1, 20, 20)
    reach = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    expected = image[0, 0].numpy()
    for axis in (0, 1):
        expected = correlate1d(expected, weights / weights.sum(), axis=axis, mode="mirror")
    with torch.autocast("cpu", torch.bfloat16):  # which must not round the pixels
        blurred = random_blur(image, sigma, sigma, 1.0, Draw(0))
    assert np.abs(blurred[0, 0].numpy() - expected).max() < 1e-5


def test_half_of_the_images_are_mirrored() -> None:
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    mirrored = random_mirror(image.repeat(1000, 1, 1, 1), Draw(0))
    counts = [int((mirrored == version).all(dim=(1, 2, 3)).sum()) for version in (image, image.flip(-1))]
    assert sum(counts) == 1000
    assert min(counts) > 430


def test_senseless_changes_are_refused() -> None:
    images = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match="shares of the area"):
        random_resized_crop(images, 4, 0.5, 1.5, Draw(0))
    with pytest.raises(ValueError, match="hue"):
        colour_jitter(images, 0.1, 0.6, 1.0, Draw(0))
    with pytest.raises(ValueError, match="standard deviations"):
        random_blur(images, 0.0, 1.0, 1.0, Draw(0))
