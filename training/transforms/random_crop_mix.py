"""Random crop and mix (RCM): one picture in four pieces, CLIC's positive sample.

CLIC (arXiv 2408.03230, 2411.12792): parts of a picture differ in complexity, so a positive sample
shows several of them, at several scales. It is a mosaic of 2 x 2 with two random crops, left as they
are, and two augmented copies of the whole picture. The authors publish the cropping (sides 1/c,
1/(2 c) and 1/(4 c) of the picture's) but not the mixing; what is decided here: every crop draws its
scale for itself, all scales alike; a crop is stretched to its quadrant; and the four pieces lie in
random order, so that place does not tell a crop from a copy.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from training.draw import Draw
from training.transforms.augment import random_boxes
from training.transforms.crop_resize import crop_resize

# Large, medium and small: the side of a crop is the picture's over c times one of these.
SCALES = (1, 2, 4)

# (images [N, C, H, W], size, draw) -> [N, C, size, size]
Augment = Callable[[Tensor, int, Draw], Tensor]


def random_crop_mix(images: Tensor, size: int, divisor: int, augment: Augment, draw: Draw) -> Tensor:
    """One mosaic of each image: [N, C, H, W] -> [N, C, size, size].

    Args:
        size: side of the mosaic in pixels, even.
        divisor: c, at least 1; the smallest crop has 1 / (4 c) of the image's side.
        augment: makes the augmented copies.
    """
    if size % 2:
        raise ValueError(f"a mosaic of 2 x 2 needs an even side, got {size}")
    half = size // 2
    crops = [random_crop(images, half, divisor, draw) for _ in range(2)]
    copies = [augment(images, half, draw) for _ in range(2)]
    return mosaic([*crops, *copies], draw)


def random_crop(images: Tensor, size: int, divisor: int, draw: Draw) -> Tensor:
    """A crop of each image at one of the three scales: [N, C, H, W] -> [N, C, size, size]."""
    count, _, height, width = images.shape
    smallest = divisor * SCALES[-1]
    if not 1 <= divisor <= min(height, width) // SCALES[-1]:
        raise ValueError(f"no crop of 1/{smallest} of the side of {height} x {width} pixels")
    parts = divisor * torch.tensor(SCALES)[draw.integers(len(SCALES), count)]  # [N]
    sides = torch.stack([height // parts, width // parts], dim=1)  # [N, 2]
    return crop_resize(images, random_boxes(sides, height, width, draw.uniform(count, 2)), size)


def mosaic(pieces: Sequence[Tensor], draw: Draw) -> Tensor:
    """Lay four pieces of each image out in random order: four of [N, C, s, s] -> [N, C, 2 s, 2 s]."""
    stacked = torch.stack(list(pieces), dim=1)  # [N, 4, C, s, s]
    count, _, channels, side, _ = stacked.shape
    order = draw.uniform(count, 4).argsort(dim=1).to(stacked.device)  # [N, 4]
    laid = stacked[torch.arange(count, device=stacked.device)[:, None], order]  # [N, 4, C, s, s]
    laid = laid.view(count, 2, 2, channels, side, side).permute(0, 3, 1, 4, 2, 5)  # [N, C, 2, s, 2, s]
    return laid.reshape(count, channels, 2 * side, 2 * side)
