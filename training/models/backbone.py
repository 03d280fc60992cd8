"""What every backbone gives: features of each patch of 16 x 16 pixels, whatever its own strides are."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 16
# Per-channel mean and standard deviation of ImageNet, the field's usual normalisation.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Zeros around the image would tell each patch how far from the border it is: measured, that reached
# six patches deep, drew a frame into every heatmap, and let the contrast be solved by position.
PADDING: Final = "replicate"


@dataclass(frozen=True, slots=True)
class Features:
    """What a backbone knows of each patch.

    Attributes:
        stages: [N, L, C] each, activations of the successive resolutions, averaged over each patch.
        blocks: [N, L, D] each, after every transformer block or residual stage; the last one normalised.
            Backbones that narrow the grid as they go have blocks of several widths D.
        grid: rows and columns of patches.
    """

    stages: tuple[Tensor, ...]
    blocks: tuple[Tensor, ...]
    grid: tuple[int, int]

    @property
    def pyramid(self) -> Tensor:
        """All stages side by side: [N, L, P]."""
        return torch.cat(self.stages, dim=2)

    @property
    def last(self) -> Tensor:
        return self.blocks[-1]


class Backbone(nn.Module, ABC):
    """RGB in [0, 1] -> features of each patch.

    Attributes:
        dim: width D of the last block.
        depth: number of blocks.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, depth: int):
        super().__init__()
        self.dim = dim
        self.depth = depth
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    @abstractmethod
    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Encode images, hiding the masked patches.

        Args:
            images: [N, 3, H, W] in [0, 1], sides multiples of 16.
            mask: bool [N, L], 1 for removed; None to see everything.
        """

    def normalise(self, images: Tensor, mask: Tensor | None) -> Tensor:
        """Images [N, 3, H, W] as the first layer sees them: removed patches are the mean colour, that is zero.

        They are hidden here, before any convolution, so that nothing leaks past a patch's border.
        """
        x = (images - self.mean) / self.std
        if mask is None:
            return x
        shown = (~mask).view(-1, 1, *grid_of(images)).to(x.dtype)
        return x * F.interpolate(shown, scale_factor=PATCH)


def grid_of(images: Tensor) -> tuple[int, int]:
    """Rows and columns of patches of images [N, C, H, W]."""
    return images.shape[2] // PATCH, images.shape[3] // PATCH


def to_patches(plane: Tensor, stride: int, grid: tuple[int, int]) -> Tensor:
    """Activations at any stride, for each patch: [N, C, H / stride, W / stride] -> [N, L, C].

    Finer ones are averaged over each patch, those at twice the patch interpolated between; of an
    odd grid, the row and column that the stride added are left out.
    """
    if stride < PATCH:
        plane = F.avg_pool2d(plane, PATCH // stride)
    elif stride > PATCH:
        plane = F.interpolate(plane, scale_factor=stride // PATCH, mode="bilinear")[:, :, : grid[0], : grid[1]]
    return plane.flatten(2).transpose(1, 2)
