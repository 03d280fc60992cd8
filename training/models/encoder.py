"""The small encoder: a convolutional pyramid to stride 16, then a transformer over the patches.

The pyramid keeps what happens at every scale inside a patch (the activations of each stage,
averaged over the patch, join the token), for complexity is as much in fine texture as in layout.
Attention may look at means over several patches instead of each: on one core of a CPU, with 22 x 22 patches,
means over 2 x 2 save a fifth of a picture's time.

There is no absolute position embedding: a depthwise convolution before each block (conditional
position encoding, arXiv 2102.10882) tells neighbours apart, works at any input size, and leaves
the contrastive task no table of positions to solve itself by.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.backbone import PADDING, PATCH, Backbone, Features, grid_of
from training.transforms.around import extend


class Encoder(Backbone):
    """RGB in [0, 1] -> features of each patch of 16 x 16 pixels.

    Args:
        dim: width D of the transformer.
        depth: number of blocks.
        heads: attention heads, dividing `dim`.
        stem: channels of the first three stages (strides 2, 4, 8); the fourth has `dim`.
        expansion: width of a block's hidden layer over `dim`.
        reduction: each patch attends to means over so many patches to a side (PVT v2, arXiv 2106.13797).
    """

    def __init__(
        self,
        dim: int = 192,
        depth: int = 6,
        heads: int = 3,
        stem: tuple[int, int, int] = (32, 64, 128),
        expansion: int = 4,
        reduction: int = 1,
    ):
        super().__init__(dim, depth)
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide the width {dim}")
        channels = (3, *stem, dim)
        self.stages = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2) for before, after in itertools.pairwise(channels)
        )
        pyramid = sum(channels[1:])
        self.embed = nn.Sequential(nn.LayerNorm(pyramid), nn.Linear(pyramid, dim))
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.blocks = nn.ModuleList(Block(dim, heads, expansion, reduction) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.apply(initialise)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """See `Backbone.forward`; a removed patch's token is a learnt one."""
        grid = grid_of(images)
        stages = self._stages(self.normalise(images, mask))
        tokens = self.embed(torch.cat(stages, dim=2))  # [N, L, D]
        if mask is not None:
            tokens = torch.where(mask.unsqueeze(2), self.mask_token.to(tokens.dtype), tokens)
        blocks = []
        for block in self.blocks:
            tokens = block(tokens, grid)
            blocks.append(tokens)
        # Flat: ONNX Runtime would fuse sum and norm into what takes three times as long.
        blocks[-1] = self.norm(tokens.flatten(0, 1)).view_as(tokens)
        return Features(stages, tuple(blocks), grid)

    def _stages(self, x: Tensor) -> tuple[Tensor, ...]:
        """Activations of each stage, averaged over each patch: [N, L, C] each."""
        # The picture goes on beyond its border as at the border, once, by all that the first patches look at there:
        # done before every stage, it took a twentieth of a picture's time.
        x = F.pad(x, (PATCH - 1, 0, PATCH - 1, 0), mode=PADDING)
        levels = []
        side = PATCH  # of a patch, in activations
        for stage in self.stages:
            x = F.relu(stage(x))
            side //= 2
            # Of what was added, side - 1 are left; with a margin of one they are a row and a column of patches more.
            patches = F.avg_pool2d(x, side, padding=1)[:, :, 1:, 1:] if side > 1 else x
            levels.append(patches.flatten(2).transpose(1, 2))  # [N, L, C]
        return tuple(levels)


class ConditionalPosition(nn.Conv2d):
    """Conditional position encoding (arXiv 2102.10882): adds to each token a depthwise 3 x 3 convolution of them."""

    def __init__(self, dim: int):
        super().__init__(dim, dim, 3, groups=dim)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:  # type: ignore[override]  # tokens, not a plane
        """Tokens [N, L, D] that know their neighbours."""
        plane = extend(tokens.view(tokens.shape[0], *grid, -1)).permute(0, 3, 1, 2)  # [N, D, h + 2, w + 2]
        return tokens + super().forward(plane).permute(0, 2, 3, 1).flatten(1, 2)


class Block(nn.Module):
    """Pre-norm transformer block with a conditional position encoding and spatial reduction of what is attended to."""

    def __init__(self, dim: int, heads: int, expansion: int, reduction: int = 1):
        super().__init__()
        self.position = ConditionalPosition(dim)
        self.norm1 = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.project = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))
        self.heads = heads
        self.reduction = reduction

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        n, length, dim = tokens.shape
        tokens = self.position(tokens, grid)
        normal = self.norm1(tokens)
        q = self.query(normal).view(n, length, self.heads, -1).transpose(1, 2)  # [N, heads, L, D / heads]
        seen = pooled(normal, grid, self.reduction)  # [N, M, D]
        k, v = self.key_value(seen).view(n, seen.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        # Written out: on a CPU in bf16 the fused kernel's backward takes four times as long at these lengths.
        attention = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # [N, heads, L, M]
        attended = attention.softmax(dim=-1) @ v  # [N, heads, L, D / heads]
        tokens = tokens + self.project(attended.transpose(1, 2).reshape(n, length, dim))
        mixed: Tensor = tokens + self.mlp(self.norm2(tokens))
        return mixed


def pooled(tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Means over `side` x `side` patches each: [N, L, D] -> [N, M, D].

    Beyond the right and the lower border of a grid that they do not divide, it goes on as at the border.
    """
    if side == 1:
        return tokens
    plane = tokens.view(tokens.shape[0], *grid, -1)
    for dim in (1, 2):
        if missing := -plane.shape[dim] % side:
            plane = torch.cat([plane, *[plane.narrow(dim, plane.shape[dim] - 1, 1)] * missing], dim=dim)
        # By slices: of a mean over parts ONNX Runtime makes a slow loop.
        parts = [plane[:, i::side] if dim == 1 else plane[:, :, i::side] for i in range(side)]
        plane = sum(parts[1:], parts[0])
    return plane.flatten(1, 2) / side**2


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
