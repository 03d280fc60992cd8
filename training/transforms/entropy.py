"""Twelve entropies of a patch, its neighbourhood and the whole view, for masked entropy modelling.

The paper predicts the entropy of a patch's grey levels. That alone says little about how complex
people find a patch; a rich target asks for texture, colour and structure at once, and in three
windows, because many flat patches of many colours are complex together. Each value is scaled to
[0, 1] by the most that it can be.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.transforms.augment import luma

MEASURES = (
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
# Windows around each patch over which the measures are taken, in patches; WHOLE is the view.
WHOLE = 0
WINDOWS = (1, 3, WHOLE)
TARGETS = tuple(f"{measure}@{window or 'whole'}" for window in WINDOWS for measure in MEASURES)

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
    """The entropies of each patch, in each window around it.

    Args:
        images: RGB [N, 3, H, W] in [0, 1]; H and W multiples of `patch`, which is a multiple of 4.

    Returns: [N, L, 36] in [0, 1], in the order of `TARGETS`.
    """
    if patch % 4:
        raise ValueError(f"the patch size must be a multiple of 4, got {patch}")
    red, green, blue = images.unbind(1)
    grey = luma(images)
    magnitude, orientation = _gradient(grey)
    half = F.avg_pool2d(grey.unsqueeze(1), 2).squeeze(1)
    channels = (
        _Channel(grey, FINE_BINS, patch),
        _Channel(grey, COARSE_BINS, patch),
        _Channel(grey, COARSE_BINS, patch // 2),
        _Channel(half, COARSE_BINS, patch // 2),
        *(_Channel(colour, COARSE_BINS, patch) for colour in (red, green, blue)),
        _Channel((red - green + 1.0) / 2.0, FINE_BINS, patch),
        _Channel(((red + green) / 2.0 - blue + 1.0) / 2.0, FINE_BINS, patch),
        _Channel(magnitude / LARGEST_GRADIENT, COARSE_BINS, patch),
        _Channel(orientation, ORIENTATION_BINS, patch, magnitude),
    )
    histograms = [cell_histograms(c.values, c.bins, c.cell, c.weights) for c in channels]  # [N, bins, h, w] each
    gradient = F.avg_pool2d(magnitude.unsqueeze(1), patch)  # [N, 1, h, w]
    grid = (gradient.shape[2], gradient.shape[3])
    entropies = []
    for window in WINDOWS:
        measures = [
            histogram_entropy(pool_window(h, window), c.cell**2) for h, c in zip(histograms, channels, strict=True)
        ]
        local_gradient = pool_window(gradient, window).squeeze(1)
        measures[-1] = measures[-1] * (local_gradient > FLAT_GRADIENT)
        measures.append((local_gradient / LARGEST_GRADIENT).clamp(0.0, 1.0).sqrt())
        entropies += [F.adaptive_avg_pool2d(m.unsqueeze(1), grid).flatten(1) for m in measures]  # [N, L] each
    return torch.stack(entropies, dim=2)  # [N, L, 36]


def cell_histograms(values: Tensor, bins: int, cell: int, weights: Tensor | None = None) -> Tensor:
    """Histogram of each cell, in pixels or in their weights.

    Args:
        values: [N, H, W] in [0, 1]; larger or smaller ones fall into the outer bins.
        bins: of equal width over [0, 1].
        cell: side of a cell in pixels, dividing H and W.
        weights: [N, H, W] of each pixel, None for 1.

    Returns: float32 [N, bins, H / cell, W / cell].
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
    return counts.view(n, rows, columns, bins).permute(0, 3, 1, 2).float()


def histogram_entropy(histograms: Tensor, pixels: int) -> Tensor:
    """Shannon entropy of histograms over the largest possible: [N, bins, h, w] -> [N, h, w] in [0, 1].

    Args:
        pixels: that each histogram counts at least; fewer pixels than bins cannot fill them all.
    """
    bins = histograms.shape[1]
    share = histograms / histograms.sum(dim=1, keepdim=True).clamp(min=1e-12)
    entropy: Tensor = torch.special.entr(share).sum(dim=1) / math.log(min(bins, pixels))
    return entropy


def pool_window(cells: Tensor, window: int) -> Tensor:
    """Mean over the window around each cell, within the view: [N, C, h, w] -> the same, or [N, C, 1, 1] for WHOLE."""
    if window == WHOLE:
        return cells.mean(dim=(2, 3), keepdim=True)
    return F.avg_pool2d(cells, window, stride=1, padding=window // 2, count_include_pad=False)


def _gradient(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Magnitude and orientation (0 to 1 for 0 to pi) of central differences: [N, H, W] each."""
    padded = F.pad(grey.unsqueeze(1), (1, 1, 1, 1), mode="replicate").squeeze(1)
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    orientation = torch.atan2(down, across) / math.pi % 1.0
    return torch.sqrt(across * across + down * down), orientation
