"""Shifted patchify: two views of one image whose patch grids are shifted against each other.

CLICv2 (arXiv 2503.06641), section on positive samples: CLIC crops positive pairs that may differ
in complexity; here the second view is the first one moved by a random distance in one of eight
directions, so patches at the same position lie side by side in the picture: other content,
about the same local complexity. The shift is drawn for each image, not for the batch: one shift
for all is learnt within minutes and teaches nothing after that. It can also be drawn for each
patch (`shifted_patches`); the shipped recipe does it by image, which keeps the second view a
picture without seams, as every picture is at inference.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.draw import Draw

# (rows, columns): the eight directions of a shift.
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


@dataclass(frozen=True, slots=True)
class ShiftedViews:
    """Two views of each image.

    Attributes:
        first, second: [N, C, size, size], cut from the same canvas.
        shifts: [N, 2] rows and columns, in pixels, by which the second is moved against the first; [N, L, 2]
            if each patch has its own.
    """

    first: Tensor
    second: Tensor
    shifts: Tensor


def sample_shifts(count: int, low: int, high: int, draw: Draw) -> Tensor:
    """Draw `count` shifts in pixels: one of eight directions, distance of `low` to `high` along each axis.

    Returns: int64 [count, 2] of rows and columns.
    """
    if not 0 <= low <= high:
        raise ValueError(f"shift distances must satisfy 0 <= low <= high, got {low} and {high}")
    direction = torch.tensor(DIRECTIONS)[draw.integers(len(DIRECTIONS), count)]  # [N, 2]
    distance = low + draw.integers(high - low + 1, count, 1)  # [N, 1]
    return direction * distance


def shifted_views(canvas: Tensor, size: int, low: int, high: int, draw: Draw) -> ShiftedViews:
    """Cut two views of `size` pixels out of each canvas, the second shifted against the first.

    Args:
        canvas: [N, C, H, W]; H and W at least `size + high`, so that both views fit.
        size: side of a view in pixels.
        low, high: bounds of the shift distance, in pixels.
    """
    count, _, height, width = canvas.shape
    _check_room(height, width, size + high)
    shifts = sample_shifts(count, low, high, draw)  # [N, 2]
    # The first view's corner is uniform over all places at which both views lie inside the canvas.
    lowest = (-shifts).clamp(min=0)
    highest = torch.tensor([height - size, width - size]) - shifts.clamp(min=0)
    corner = lowest + (draw.uniform(count, 2) * (highest - lowest + 1)).long()
    return ShiftedViews(_cut(canvas, corner, size), _cut(canvas, corner + shifts, size), shifts)


def shifted_patches(canvas: Tensor, size: int, patch: int, low: int, high: int, draw: Draw) -> ShiftedViews:
    """As `shifted_views`, but every patch of the second view is shifted on its own.

    Args:
        canvas: [N, C, H, W]; H and W at least `size + 2 * high`: patches move in all directions at once.
        patch: side of a patch in pixels, dividing `size`.
    """
    count, _, height, width = canvas.shape
    _check_room(height, width, size + 2 * high)
    side = size // patch
    shifts = sample_shifts(count * side**2, low, high, draw).view(count, side**2, 2)  # [N, L, 2]
    room = torch.tensor([height, width]) - size - 2 * high
    corner = high + (draw.uniform(count, 2) * (room + 1)).long()  # [N, 2]
    pixel = torch.arange(size)
    rows, columns = torch.meshgrid(pixel, pixel, indexing="ij")
    of_patch = (rows // patch) * side + columns // patch  # [size, size]
    moved = shifts[:, of_patch]  # [N, size, size, 2]
    rows = (rows + corner[:, 0, None, None] + moved[..., 0]).to(canvas.device)  # [N, size, size]
    columns = (columns + corner[:, 1, None, None] + moved[..., 1]).to(canvas.device)
    image = torch.arange(count, device=canvas.device)[:, None, None]
    second = canvas.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 3, 1, 2)  # [N, C, size, size]
    return ShiftedViews(_cut(canvas, corner, size), second, shifts)


def _check_room(height: int, width: int, needed: int) -> None:
    if min(height, width) < needed:
        raise ValueError(f"a canvas of {height} x {width} has no room for views and shifts of {needed} together")


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut images into patches: [N, C, H, W] -> [N, L, patch * patch * C], rows of patches first."""
    n, c, height, width = images.shape
    rows, columns = height // patch, width // patch
    if (rows * patch, columns * patch) != (height, width):
        raise ValueError(f"{height} x {width} pixels do not divide into patches of {patch}")
    cells = images.reshape(n, c, rows, patch, columns, patch)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(n, rows * columns, patch * patch * c)


def _cut(canvas: Tensor, corner: Tensor, size: int) -> Tensor:
    places = corner.tolist()
    return torch.stack(
        [image[:, top : top + size, left : left + size] for image, (top, left) in zip(canvas, places, strict=True)]
    )
