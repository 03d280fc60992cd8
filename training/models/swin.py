"""Swin (arXiv 2103.14030) from `transformers`, random weights, brought to the grid of patches.

The blocks are the library's, but the windows are laid out here, for any input size. The library's own
layout fails on maps smaller than a window, keeps the smaller windows of the smallest image it has
seen, and lets the zeros that it pads with take part in the attention, which would draw a frame.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SwinConfig, SwinModel
from transformers.models.swin.modeling_swin import SwinAttention, SwinLayer, SwinPatchMerging, SwinStage

from training.models.backbone import PATCH, Backbone, Features, grid_of, to_patches
from training.models.lateral import Lateral

STRIDE = 4


class Swin(Backbone):
    """RGB in [0, 1] -> features of each patch of 16 x 16 pixels.

    `stages` begins with the embedding of the pixels alone, before a removed patch's cells are replaced
    by a learnt one.

    Args:
        dim: width of the first stage (stride 4); every further stage doubles stride and width.
        depths: blocks in each of the four stages.
        heads: attention heads in each stage, dividing its width.
        window: side of a window in cells. 8, as in Swin V2 (arXiv 2111.09883), where the paper, for images
            of 224, has 7: it divides the maps of views of 128 and of inputs of 256, so that patches
            are treated alike, and saves a fifth of the multiplications there.
    """

    def __init__(self, dim: int, depths: Sequence[int], heads: Sequence[int], window: int = 8):
        widths = [dim * 2**stage for stage in range(len(depths))]
        super().__init__(widths[-1], sum(depths))
        if any(width % n for width, n in zip(widths, heads, strict=True)):
            raise ValueError(f"heads {tuple(heads)} do not divide the widths {tuple(widths)}")
        config = SwinConfig(
            patch_size=STRIDE,
            embed_dim=dim,
            depths=list(depths),
            num_heads=list(heads),
            window_size=window,
            drop_path_rate=0.0,  # it would draw from torch's own generator; a step's randomness is its own
        )
        model = SwinModel(config, add_pooling_layer=False)
        model.set_attn_implementation("eager")  # see `ViT`
        self.embed: nn.Conv2d = model.embeddings.patch_embeddings.projection
        self.embed_norm: nn.LayerNorm = model.embeddings.norm
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim), std=config.initializer_range))
        self.levels: nn.ModuleList = model.encoder.layers
        self.lateral = Lateral(widths[-2], widths[-1])

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """See `Backbone.forward`."""
        grid = grid_of(images)
        x = self.embed_norm(self.embed(self.normalise(images, mask)).permute(0, 2, 3, 1))  # [N, H / 4, W / 4, C]
        stages = [_to_patches(x, STRIDE, grid)]
        if mask is not None:
            cells = PATCH // STRIDE
            removed = mask.view(-1, *grid).repeat_interleave(cells, dim=1).repeat_interleave(cells, dim=2)
            x = torch.where(removed.unsqueeze(3), self.mask_token.to(x.dtype), x)
        blocks = []
        stride = STRIDE
        for level in cast("Iterable[SwinStage]", self.levels):
            for block in cast("Iterable[SwinLayer]", level.blocks):
                x = _apply(block, x)
                blocks.append(_to_patches(x, stride, grid))
            stages.append(blocks[-1])
            if level.downsample is not None:
                x = _merge(level.downsample, x)
                stride *= 2
        blocks[-1] = self.lateral(stages[-2], stages[-1])
        return Features(tuple(stages), tuple(blocks), grid)


def _to_patches(x: Tensor, stride: int, grid: tuple[int, int]) -> Tensor:
    return to_patches(x.permute(0, 3, 1, 2), stride, grid)


def _apply(block: SwinLayer, x: Tensor) -> Tensor:
    """One transformer block, its attention within windows: [N, h, w, C] -> [N, h, w, C]."""
    side, shift = block.attention.relative_position_bias.window_size[0], block.shift_size
    attended = _attend(block.attention, block.layernorm_before(x), side, shift)
    x = x + attended
    mixed: Tensor = x + block.mlp(block.layernorm_after(x))
    return mixed


def _attend(attention: SwinAttention, x: Tensor, side: int, shift: int) -> Tensor:
    """Self-attention within windows of `side` cells, rolled by `shift` along the axes that are longer than one.

    A map that windows do not divide is padded; a cell attends to the cells of its window that were
    there and were near it before the roll, so padding and the far border have no say.
    """
    n, h, w, c = x.shape
    rows, columns = -(-h // side), -(-w // side)  # of windows
    shifts = (shift if h > side else 0, shift if w > side else 0)
    padded = F.pad(x, (0, 0, 0, columns * side - w, 0, rows * side - h))
    rolled = torch.roll(padded, (-shifts[0], -shifts[1]), (1, 2))
    windows = rolled.view(n, rows, side, columns, side, c).transpose(2, 3).reshape(n * rows * columns, side * side, c)
    attended, _ = attention(windows, _window_mask((h, w), side, shifts, x.device))
    joined = attended.view(n, rows, columns, side, side, c).transpose(2, 3).reshape(n, rows * side, columns * side, c)
    return torch.roll(joined, shifts, (1, 2))[:, :h, :w]


def _window_mask(size: tuple[int, int], side: int, shifts: tuple[int, int], device: torch.device) -> Tensor | None:
    """What is added to the attention's logits: -inf between cells of different regions, [windows, side^2, side^2].

    Returns None when there is only one region.
    """
    if not any(shifts) and not any(length % side for length in size):
        return None
    regions = []
    for length, shift in zip(size, shifts, strict=True):
        place = torch.arange(-(-length // side) * side, device=device)
        rolled = (place + shift) % len(place)  # where the cell at each place of the rolled map comes from
        regions.append((rolled < shift) + 2 * (rolled >= length))  # from the far side, padding
    region = (4 * regions[0][:, None] + regions[1][None, :]).view(len(regions[0]) // side, side, -1, side)
    region = region.transpose(1, 2).reshape(-1, side * side)  # [windows, side^2]
    apart = region[:, :, None] != region[:, None, :]
    return torch.zeros(apart.shape, device=device).masked_fill(apart, -torch.inf)


def _merge(merging: SwinPatchMerging, x: Tensor) -> Tensor:
    """Half the resolution at twice the width; the last row or column of an odd map counts twice."""
    x = torch.cat([x, x[:, -1:]], dim=1) if x.shape[1] % 2 else x
    x = torch.cat([x, x[:, :, -1:]], dim=2) if x.shape[2] % 2 else x
    n, h, w, c = x.shape
    merged: Tensor = merging(x.flatten(1, 2), (h, w)).view(n, h // 2, w // 2, 2 * c)
    return merged
