"""ViT (arXiv 2010.11929) from `transformers`, random weights: a linear embedding of each patch, then a transformer.

Its table of absolute positions is left out for the conditional position encoding of our own encoder,
and for the reasons given there: it fits any input size, and the contrast cannot be solved by position.
So is the class token, which no loss here would train: what stands for the image is the mean of its patches.
"""

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

from training.models.backbone import PATCH, Backbone, Features, grid_of, to_patches
from training.models.encoder import ConditionalPosition, initialise


class ViT(Backbone):
    """RGB in [0, 1] -> features of each patch of 16 x 16 pixels.

    `stages` holds the embedding of the pixels alone, before a removed patch's is replaced by a learnt one.

    Args:
        dim: width D.
        depth: number of blocks.
        heads: attention heads, dividing `dim`.
    """

    def __init__(self, dim: int, depth: int, heads: int):
        super().__init__(dim, depth)
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide the width {dim}")
        config = ViTConfig(
            hidden_size=dim,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=4 * dim,
            patch_size=PATCH,
            # Not the 1e-12 of `transformers`, which multiplies the gradient of a vector near zero by a
            # million: the learnt token of a patch amid removed ones begins near zero.
            layer_norm_eps=1e-5,
        )
        model = ViTModel(config, add_pooling_layer=False)
        # Measured on a CPU in bf16: a step takes three quarters of the time that it takes with the fused kernel.
        model.set_attn_implementation("eager")
        self.embed: nn.Conv2d = model.embeddings.patch_embeddings.projection
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim), std=config.initializer_range))
        self.blocks = nn.ModuleList(Block(dim, layer) for layer in model.layers)
        self.norm: nn.LayerNorm = model.layernorm

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """See `Backbone.forward`."""
        grid = grid_of(images)
        embedded = to_patches(self.embed(self.normalise(images, mask)), PATCH, grid)
        tokens = embedded  # [N, L, D]
        if mask is not None:
            tokens = torch.where(mask.unsqueeze(2), self.mask_token.to(tokens.dtype), tokens)
        blocks = []
        for block in self.blocks:
            tokens = block(tokens, grid)
            blocks.append(tokens)
        blocks[-1] = self.norm(tokens)
        return Features((embedded,), tuple(blocks), grid)


class Block(nn.Module):
    """A conditional position encoding, then the library's transformer layer."""

    def __init__(self, dim: int, layer: nn.Module):
        super().__init__()
        self.position = ConditionalPosition(dim).apply(initialise)
        self.layer = layer

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        mixed: Tensor = self.layer(self.position(tokens, grid))
        return mixed
