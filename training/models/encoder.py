"""The small encoder: a convolutional pyramid to stride 16, then a transformer over the patches.

The pyramid keeps what happens at every scale inside a patch (the activations of each stage,
averaged over the patch, join the token), for complexity is as much in fine texture as in layout.
There is no absolute position embedding: a depthwise convolution before each block (conditional
position encoding, arXiv 2102.10882) tells neighbours apart, works at any input size, and leaves
the contrastive task no table of positions to solve itself by.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.backbone import PADDING, Backbone, Features, grid_of, to_patches


class Encoder(Backbone):
    """RGB in [0, 1] -> features of each patch of 16 x 16 pixels.

    Args:
        dim: width D of the transformer.
        depth: number of blocks.
        heads: attention heads, dividing `dim`.
        stem: channels of the first three stages (strides 2, 4, 8); the fourth has `dim`.
        expansion: width of a block's hidden layer over `dim`.
    """

    def __init__(
        self,
        dim: int = 192,
        depth: int = 6,
        heads: int = 3,
        stem: tuple[int, int, int] = (32, 64, 128),
        expansion: int = 4,
    ):
        super().__init__(dim, depth)
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide the width {dim}")
        channels = (3, *stem, dim)
        self.stages = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1, padding_mode=PADDING)
            for before, after in itertools.pairwise(channels)
        )
        pyramid = sum(channels[1:])
        self.embed = nn.Sequential(nn.LayerNorm(pyramid), nn.Linear(pyramid, dim))
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.blocks = nn.ModuleList(Block(dim, heads, expansion) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.apply(initialise)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """See `Backbone.forward`; a removed patch's token is a learnt one."""
        grid = grid_of(images)
        stages = self._stages(self.normalise(images, mask), grid)
        tokens = self.embed(torch.cat(stages, dim=2))  # [N, L, D]
        if mask is not None:
            tokens = torch.where(mask.unsqueeze(2), self.mask_token.to(tokens.dtype), tokens)
        blocks = []
        for block in self.blocks:
            tokens = block(tokens, grid)
            blocks.append(tokens)
        blocks[-1] = self.norm(tokens)
        return Features(stages, tuple(blocks), grid)

    def _stages(self, x: Tensor, grid: tuple[int, int]) -> tuple[Tensor, ...]:
        """Activations of each stage, averaged over each patch: [N, L, C] each."""
        levels = []
        stride = 1
        for stage in self.stages:
            x = F.relu(stage(x))  # [N, C, H / stride, W / stride]
            stride *= 2
            levels.append(to_patches(x, stride, grid))  # [N, L, C]
        return tuple(levels)


class ConditionalPosition(nn.Conv2d):
    """Conditional position encoding (arXiv 2102.10882): adds to each token a depthwise 3 x 3 convolution of them."""

    def __init__(self, dim: int):
        super().__init__(dim, dim, 3, padding=1, padding_mode=PADDING, groups=dim)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:  # type: ignore[override]  # tokens, not a plane
        """Tokens [N, L, D] that know their neighbours."""
        plane = tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)
        return tokens + super().forward(plane).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm transformer block with a conditional position encoding."""

    def __init__(self, dim: int, heads: int, expansion: int):
        super().__init__()
        self.position = ConditionalPosition(dim)
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))
        self.heads = heads

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        n, length, dim = tokens.shape
        tokens = self.position(tokens, grid)
        q, k, v = self.qkv(self.norm1(tokens)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # Written out: on a CPU in bf16 the fused kernel's backward takes four times as long at these lengths.
        attention = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # [N, heads, L, L]
        attended = attention.softmax(dim=-1) @ v  # [N, heads, L, D / heads]
        tokens = tokens + self.project(attended.transpose(1, 2).reshape(n, length, dim))
        mixed: Tensor = tokens + self.mlp(self.norm2(tokens))
        return mixed


def initialise(module: nn.Module) -> None:
    """Initial weights of our own layers; for `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.groups > 1:  # position encodings start small beside the residual stream
            nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
