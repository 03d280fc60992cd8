"""The small encoder: a convolutional pyramid to stride 16, then a transformer over the patches.

The pyramid keeps what happens at every scale inside a patch (the activations of each stage,
averaged over the patch, join the token), for complexity is as much in fine texture as in layout.
There is no absolute position embedding: a depthwise convolution before each block (conditional
position encoding, arXiv 2102.10882) tells neighbours apart, works at any input size, and leaves
the contrastive task no table of positions to solve itself by.
"""

import itertools
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 16
# Zeros around the image would tell each patch how far from the border it is: measured, that reached
# six patches deep, drew a frame into every heatmap, and let the contrast be solved by position.
PADDING: Final = "replicate"
# Per-channel mean and standard deviation of ImageNet, the field's usual normalisation.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Features:
    """What the encoder knows of each patch.

    Attributes:
        pyramid: [N, L, P] activations of the stem's stages, averaged over each patch.
        blocks: [N, L, D] after each transformer block, the last one normalised.
        grid: rows and columns of patches.
    """

    pyramid: Tensor
    blocks: tuple[Tensor, ...]
    grid: tuple[int, int]

    @property
    def last(self) -> Tensor:
        return self.blocks[-1]


class Encoder(nn.Module):
    """RGB in [0, 1] -> features of each patch of 16 x 16 pixels.

    Args:
        dim: width D of the transformer.
        depth: number of blocks.
        heads: attention heads, dividing `dim`.
        stem: channels of the first three stages (strides 2, 4, 8); the fourth has `dim`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int = 192, depth: int = 6, heads: int = 3, stem: tuple[int, int, int] = (32, 64, 128)):
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide the width {dim}")
        channels = (3, *stem, dim)
        self.stages = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1, padding_mode=PADDING)
            for before, after in itertools.pairwise(channels)
        )
        self.pyramid_size = sum(channels[1:])
        self.embed = nn.Sequential(nn.LayerNorm(self.pyramid_size), nn.Linear(self.pyramid_size, dim))
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.dim = dim
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.apply(_initialise)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Encode images, hiding the masked patches already in the pixels so that nothing leaks past their borders.

        Args:
            images: [N, 3, H, W] in [0, 1], sides multiples of 16.
            mask: bool [N, L], 1 for removed; None to see everything.
        """
        grid = (images.shape[2] // PATCH, images.shape[3] // PATCH)
        x = (images - self.mean) / self.std
        if mask is not None:
            shown = (~mask).view(-1, 1, *grid).to(x.dtype)
            x = x * F.interpolate(shown, scale_factor=PATCH)  # removed patches become the mean colour
        pyramid = self._pyramid(x)  # [N, L, P]
        tokens = self.embed(pyramid)  # [N, L, D]
        if mask is not None:
            tokens = torch.where(mask.unsqueeze(2), self.mask_token.to(tokens.dtype), tokens)
        blocks = []
        for block in self.blocks:
            tokens = block(tokens, grid)
            blocks.append(tokens)
        blocks[-1] = self.norm(tokens)
        return Features(pyramid, tuple(blocks), grid)

    def _pyramid(self, x: Tensor) -> Tensor:
        levels = []
        stride = 1
        for stage in self.stages:
            x = F.relu(stage(x))  # [N, C, H / stride, W / stride]
            stride *= 2
            pooled = x if stride == PATCH else F.avg_pool2d(x, PATCH // stride)
            levels.append(pooled.flatten(2).transpose(1, 2))  # [N, L, C]
        return torch.cat(levels, dim=2)


class Block(nn.Module):
    """Pre-norm transformer block with a conditional position encoding."""

    def __init__(self, dim: int, heads: int, expansion: int = 4):
        super().__init__()
        self.position = nn.Conv2d(dim, dim, 3, padding=1, padding_mode=PADDING, groups=dim)
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))
        self.heads = heads

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        n, length, dim = tokens.shape
        plane = tokens.transpose(1, 2).reshape(n, dim, *grid)
        tokens = tokens + self.position(plane).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm1(tokens)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # Written out: on a CPU in bf16 the fused kernel's backward takes four times as long at these lengths.
        attention = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # [N, heads, L, L]
        attended = attention.softmax(dim=-1) @ v  # [N, heads, L, D / heads]
        tokens = tokens + self.project(attended.transpose(1, 2).reshape(n, length, dim))
        mixed: Tensor = tokens + self.mlp(self.norm2(tokens))
        return mixed


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.groups > 1:  # position encodings start small beside the residual stream
            nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
