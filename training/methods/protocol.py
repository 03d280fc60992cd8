"""What the engine needs of a pretraining method."""

from typing import Protocol

import torch
from torch import Tensor, nn

from training.models.encoder import Encoder


class Method(Protocol):
    """A model and its training step; every method's encoder and entropy head can be exported.

    Attributes:
        encoder: what is kept after pretraining.
        entropy_head: patch features [N, L, D] -> entropies [N, L, K] in [0, 1], the label-free output.
        module: everything with weights, the encoder included.
    """

    encoder: Encoder
    entropy_head: nn.Module
    module: nn.Module

    def step(self, canvas: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses and measures of one batch; the one called "loss" is minimised.

        Args:
            canvas: uint8 [N, H, W, 3], as `clicv2.imaging.to_model_input` gives them.
            generator: the only source of randomness, on the CPU.
        """
        ...
