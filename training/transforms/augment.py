"""Mild colour changes, flips and resizing: what leaves complexity about as it is.

The two views of an image get different ones, so that its colours do not give the positive pair
away. They are mild because contrast and saturation are part of complexity.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Rec. 601 luma weights of R, G and B.
LUMA = (0.299, 0.587, 0.114)


def luma(images: Tensor) -> Tensor:
    """Grey level of RGB images: [N, 3, H, W] -> [N, H, W]."""
    red, green, blue = images.unbind(1)
    grey: Tensor = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return grey


def jitter(images: Tensor, strength: float, grey_share: float, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast and saturation of each image by factors in [1 - strength, 1 + strength].

    Args:
        images: [N, 3, H, W] in [0, 1]; the result is clipped to that.
        grey_share: share of the images that lose their colours altogether.
    """
    if not 0.0 <= strength < 1.0:
        raise ValueError(f"the strength must be at least 0 and below 1, got {strength}")
    factors = 1.0 + strength * (2.0 * torch.rand(3, len(images), 1, 1, 1, generator=generator) - 1.0)
    factors[2][torch.rand(len(images), generator=generator) < grey_share] = 0.0
    brightness, contrast, saturation = factors.to(images)
    images = images * brightness
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + contrast * (images - mean)
    grey = luma(images).unsqueeze(1)
    jittered: Tensor = (grey + saturation * (images - grey)).clamp(0.0, 1.0)
    return jittered


def random_flips(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image with probability 1/2 left to right, then with 1/2 along its diagonal (square images)."""
    chosen = torch.rand(2, len(images), 1, 1, 1, generator=generator).to(images.device) < 0.5
    images = torch.where(chosen[0], images.flip(-1), images)
    return torch.where(chosen[1], images.transpose(-1, -2), images)


def random_resize(images: Tensor, low: float, high: float, at_least: int, generator: torch.Generator) -> Tensor:
    """Resize a batch by one random factor in [low, high], but not below a side of `at_least` pixels."""
    if not 0.0 < low <= high:
        raise ValueError(f"scale factors must satisfy 0 < low <= high, got {low} and {high}")
    factor = low + (high - low) * float(torch.rand((), generator=generator))
    side = max(at_least, round(min(images.shape[2:]) * factor))
    if side == min(images.shape[2:]):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=factor < 1.0, align_corners=False)
