"""Cut a box out of each image of a batch and resize it, antialiased.

Complexity is in the finest detail, so nothing may alias on the way: grid sampling (`F.grid_sample`,
`kornia.geometry.transform.crop_and_resize`) reads four pixels for each one that it writes, and
`F.interpolate` antialiases but takes the same box of every image. Here each axis is one product with
a matrix of triangle weights, a matrix for each image: exact, on any device, the same at every run.
"""

import torch
from torch import Tensor


def crop_resize(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """What `F.interpolate(..., mode="bilinear", antialias=True)` makes of each image's own box.

    Args:
        images: float32 [N, C, H, W].
        boxes: int64 [N, 4], top, left, height and width in pixels, inside the image and not empty.
        size: side of the result in pixels.

    Returns: [N, C, size, size].
    """
    top, left, height, width = boxes.to(images).unbind(1)
    rows = _weights(top, height, images.shape[2], size).unsqueeze(1)  # [N, 1, size, H]
    columns = _weights(left, width, images.shape[3], size).unsqueeze(1)  # [N, 1, size, W]
    # In bfloat16 bright pixels come in steps of 1/256, and the weights in coarser ones still.
    with torch.autocast(images.device.type, enabled=False):
        resized: Tensor = rows @ images @ columns.transpose(-1, -2)
    return resized


def _weights(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """Share of each pixel of an axis in each new one, for a stretch of it: [N], [N] -> [N, size, pixels]."""
    scale = length / size  # old pixels for each new one
    new = torch.arange(size, device=start.device)
    old = torch.arange(pixels, device=start.device)
    centre = start[:, None] + (new + 0.5) * scale[:, None]  # [N, size], of each new pixel in the old image
    reach = scale.clamp(min=1.0)[:, None, None]
    weights = (1.0 - (old + 0.5 - centre.unsqueeze(2)).abs() / reach).clamp(min=0.0)  # [N, size, pixels]
    inside = (old >= start[:, None]) & (old < (start + length)[:, None])  # [N, pixels]
    weights = weights * inside.unsqueeze(1)
    return weights / weights.sum(dim=2, keepdim=True)
