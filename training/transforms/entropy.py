"""Twelve entropies of a patch: the target of masked entropy modelling.

The paper predicts the entropy of a patch's grey levels. That alone says little about how complex
people find a patch; a rich target asks for texture, colour and structure at once. Each value is
scaled to [0, 1] by the most that it can be.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.transforms.photometric import luma

TARGETS = (
    "grey",
    "grey_coarse_bins",
    "grey_cells",
    "grey_half_resolution",
    "red",
    "green",
    "blue",
    "red_green",
    "yellow_blue",
    "gradient_magnitude",
    "gradient_orientation",
    "mean_gradient",
)

FINE_BINS = 64
COARSE_BINS = 16
ORIENTATION_BINS = 12
# Luma gradients above this fall into the last bin; hard edges of text reach about 1.
LARGEST_GRADIENT = 0.5
# Below this mean gradient a patch is flat: the orientation of its noise is not structure.
FLAT_GRADIENT = 1e-3


@dataclass(frozen=True, slots=True)
class _Channel:
    """Values to take a histogram of: [N, H, W] in [0, 1], in cells of `cell` pixels, each pixel weighted."""

    values: Tensor
    bins: int
    cell: int
    weights: Tensor | None = None


def patch_entropies(images: Tensor, patch: int) -> Tensor:
    """The entropies of each patch.

    Args:
        images: RGB [N, 3, H, W] in [0, 1]; H and W multiples of `patch`, which is a multiple of 4.

    Returns: [N, L, 12] in [0, 1], in the order of `TARGETS`.
    """
    if patch % 4:
        raise ValueError(f"the patch size must be a multiple of 4, got {patch}")
    red, green, blue = images.unbind(1)
    grey = luma(images)
    magnitude, orientation = _gradient(grey)
    channels = [
        _Channel(grey, FINE_BINS, patch),
        _Channel(grey, COARSE_BINS, patch),
        _Channel(grey, COARSE_BINS, patch // 2),
        _Channel(F.avg_pool2d(grey.unsqueeze(1), 2).squeeze(1), COARSE_BINS, patch // 2),
        *(_Channel(colour, COARSE_BINS, patch) for colour in (red, green, blue)),
        _Channel((red - green + 1.0) / 2.0, FINE_BINS, patch),
        _Channel(((red + green) / 2.0 - blue + 1.0) / 2.0, FINE_BINS, patch),
        _Channel(magnitude / LARGEST_GRADIENT, COARSE_BINS, patch),
        _Channel(orientation, ORIENTATION_BINS, patch, magnitude),
    ]
    grid = (images.shape[2] // patch, images.shape[3] // patch)
    entropies = [_pool_cells(cell_entropy(c.values, c.bins, c.cell, c.weights), grid) for c in channels]
    mean_gradient = F.avg_pool2d(magnitude.unsqueeze(1), patch).flatten(1)  # [N, L]
    entropies[-1] = entropies[-1] * (mean_gradient > FLAT_GRADIENT)
    entropies.append((mean_gradient / LARGEST_GRADIENT).clamp(0.0, 1.0).sqrt())
    return torch.stack(entropies, dim=2)  # [N, L, 12]


def cell_entropy(values: Tensor, bins: int, cell: int, weights: Tensor | None = None) -> Tensor:
    """Shannon entropy of the histogram of each cell, over the largest possible.

    Args:
        values: [N, H, W] in [0, 1]; larger or smaller ones fall into the outer bins.
        bins: of equal width over [0, 1].
        cell: side of a cell in pixels, dividing H and W.
        weights: [N, H, W] of each pixel, None for 1.

    Returns: [N, H / cell, W / cell] in [0, 1].
    """
    n, height, width = values.shape
    rows, columns = height // cell, width // cell
    levels = (values * bins).long().clamp_(0, bins - 1)  # [N, H, W]
    row = torch.arange(height, device=values.device) // cell
    column = torch.arange(width, device=values.device) // cell
    cells = (row[:, None] * columns + column[None, :]) * bins  # [H, W]
    image = torch.arange(n, device=values.device)[:, None, None] * (rows * columns * bins)
    index = (levels + cells + image).flatten()
    counts = torch.bincount(
        index, weights=None if weights is None else weights.flatten(), minlength=n * rows * columns * bins
    )
    histogram = counts.view(n, rows, columns, bins).float()
    share = histogram / histogram.sum(dim=3, keepdim=True).clamp(min=1e-12)
    most = bins if weights is not None else min(bins, cell * cell)
    entropy: Tensor = torch.special.entr(share).sum(dim=3) / math.log(most)
    return entropy


def _gradient(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Magnitude and orientation (0 to 1 for 0 to pi) of central differences: [N, H, W] each."""
    padded = F.pad(grey.unsqueeze(1), (1, 1, 1, 1), mode="replicate").squeeze(1)
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    orientation = torch.atan2(down, across) / math.pi % 1.0
    return torch.sqrt(across * across + down * down), orientation


def _pool_cells(entropy: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean over the cells of each patch: [N, rows, columns] -> [N, L]."""
    return F.adaptive_avg_pool2d(entropy.unsqueeze(1), grid).flatten(1)
