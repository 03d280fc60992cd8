"""Changes that leave complexity about as it is: mild colour changes, flips, resizing. Whole batches at once.

kornia does the pixels, on whatever device they are; the numbers come from the step's `Draw`. The
two views of an image get different ones, so that its colours do not give the positive pair away.
They are mild because contrast and saturation are part of complexity. Those of MoCo v2 (crops to a
fifth of the area, hue, blur) are not, and are here for the predecessor and the baseline.
"""

import math

import torch
import torch.nn.functional as F
from kornia import enhance, filters
from torch import Tensor

from training.draw import Draw
from training.transforms.crop_resize import crop_resize

# Rec. 601 luma weights of R, G and B.
LUMA = (0.299, 0.587, 0.114)
# Width over height of a random crop lies between this and its inverse, as everywhere since Inception.
NARROWEST = 3.0 / 4.0


def luma(images: Tensor) -> Tensor:
    """Grey level of RGB images: [N, 3, H, W] -> [N, H, W]."""
    red, green, blue = images.unbind(1)
    grey: Tensor = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return grey


def jitter(images: Tensor, strength: float, grey_share: float, draw: Draw) -> Tensor:
    """Change brightness, contrast and saturation of each image by factors in [1 - strength, 1 + strength].

    Args:
        images: [N, 3, H, W] in [0, 1]; the result is clipped to that.
        grey_share: share of the images that lose their colours altogether.
    """
    if not 0.0 <= strength < 1.0:
        raise ValueError(f"the strength must be at least 0 and below 1, got {strength}")
    factors = 1.0 + strength * (2.0 * draw.uniform(len(images), 3) - 1.0)  # [N, 3]
    factors[draw.uniform(len(images)) < grey_share, 2] = 0.0
    brightness, contrast, saturation = factors.to(images).unbind(1)
    images = enhance.adjust_brightness_accumulative(images, brightness)
    images = enhance.adjust_contrast_with_mean_subtraction(images, contrast)
    return enhance.adjust_saturation_with_gray_subtraction(images, saturation)


def random_flips(images: Tensor, draw: Draw) -> Tensor:
    """Mirror each image with probability 1/2 left to right, then with 1/2 along its diagonal (square images)."""
    chosen = (draw.uniform(len(images), 2) < 0.5).to(images.device).view(-1, 2, 1, 1, 1)
    images = torch.where(chosen[:, 0], images.flip(-1), images)
    return torch.where(chosen[:, 1], images.transpose(-1, -2), images)


def random_resize(images: Tensor, low: float, high: float, at_least: int, draw: Draw) -> Tensor:
    """Resize a batch by one random factor in [low, high], but not below a side of `at_least` pixels."""
    if not 0.0 < low <= high:
        raise ValueError(f"scale factors must satisfy 0 < low <= high, got {low} and {high}")
    factor = low + (high - low) * draw.shared()
    side = max(at_least, round(min(images.shape[2:]) * factor))
    if side == min(images.shape[2:]):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=factor < 1.0, align_corners=False)


def random_resized_crop(images: Tensor, size: int, low: float, high: float, draw: Draw) -> Tensor:
    """Resize a random part of each image: [N, C, H, W] -> [N, C, size, size].

    Args:
        low, high: bounds of the part's share of the area. A side that would leave the image ends at its border.
    """
    if not 0.0 < low <= high <= 1.0:
        raise ValueError(f"shares of the area must satisfy 0 < low <= high <= 1, got {low} and {high}")
    count, _, height, width = images.shape
    drawn = draw.uniform(count, 4)
    area = height * width * (low + (high - low) * drawn[:, 0])
    ratio = NARROWEST ** (2.0 * drawn[:, 1] - 1.0)  # uniform in its logarithm
    sides = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], dim=1).round()  # [N, 2]
    sides = sides.clamp(min=1.0).minimum(torch.tensor([height, width]))
    return crop_resize(images, random_boxes(sides.long(), height, width, drawn[:, 2:]), size)


def random_boxes(sides: Tensor, height: int, width: int, drawn: Tensor) -> Tensor:
    """Boxes of given sides somewhere in images of height x width.

    Args:
        sides: int64 [N, 2], height and width of each box.
        drawn: [N, 2] uniform in [0, 1).

    Returns: int64 [N, 4], top, left, height and width.
    """
    room = torch.tensor([height, width]) - sides
    corner = (drawn * (room + 1)).long().minimum(room)  # the product may round up to room + 1
    return torch.cat([corner, sides], dim=1)


def colour_jitter(images: Tensor, strength: float, hue: float, share: float, draw: Draw) -> Tensor:
    """`jitter` and a turn of the hue, for a share of the images [N, 3, H, W]; the others stay as they are.

    In a fixed order (brightness, contrast, saturation, hue), where torchvision draws it, so that
    the batch is changed at once.

    Args:
        hue: largest turn, in turns of the colour circle; at most 1/2.
    """
    if not 0.0 <= hue <= 0.5:
        raise ValueError(f"the hue must turn by 0 to 1/2, got {hue}")
    changed = jitter(images, strength, 0.0, draw)
    if hue > 0.0:  # the dearest of the changes on a CPU
        turn = 2.0 * math.pi * hue * (2.0 * draw.uniform(len(images)) - 1.0)
        changed = enhance.adjust_hue(changed, turn.to(images))
    return torch.where(_chosen(images, share, draw), changed, images)


def random_grey(images: Tensor, share: float, draw: Draw) -> Tensor:
    """Take the colours from a share of the images [N, 3, H, W]."""
    return torch.where(_chosen(images, share, draw), luma(images).unsqueeze(1), images)


def random_blur(images: Tensor, low: float, high: float, share: float, draw: Draw) -> Tensor:
    """Blur a share of the images by a Gaussian.

    Args:
        images: [N, C, H, W], sides more than 3 `high` pixels.
        low, high: bounds of its standard deviation in pixels.
    """
    if not 0.0 < low <= high:
        raise ValueError(f"standard deviations must satisfy 0 < low <= high, got {low} and {high}")
    sigma = low + (high - low) * draw.uniform(len(images), 1)  # [N, 1]
    kernel = 2 * math.ceil(3.0 * high) + 1
    with torch.autocast(images.device.type, enabled=False):  # a convolution in bfloat16 rounds the pixels
        blurred = filters.gaussian_blur2d(images, kernel, sigma.expand(-1, 2).to(images))
    return torch.where(_chosen(images, share, draw), blurred, images)


def random_mirror(images: Tensor, draw: Draw) -> Tensor:
    """Mirror each image left to right with probability 1/2."""
    return torch.where(_chosen(images, 0.5, draw), images.flip(-1), images)


def _chosen(images: Tensor, share: float, draw: Draw) -> Tensor:
    """A random share of the images: bool [N, 1, 1, 1]."""
    return (draw.uniform(len(images)) < share).to(images.device).view(-1, 1, 1, 1)
