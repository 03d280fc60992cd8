"""What the engine needs of a pretraining method."""

from typing import Protocol

from torch import Tensor, nn

from training.draw import Draw
from training.models.backbone import Backbone


class Method(Protocol):
    """A model and its training step; every method's encoder and label-free output can be exported.

    Attributes:
        encoder: what is kept after pretraining.
        label_free: `Computed` and `Features` of images -> local complexity in [0, 1] that no human rating has touched,
            [N, L].
        module: everything with weights, the encoder included.
    """

    encoder: Backbone
    label_free: nn.Module
    module: nn.Module

    def step(self, canvas: Tensor, draw: Draw) -> dict[str, Tensor]:
        """Losses and measures of one batch; the one called "loss" is minimised.

        Args:
            canvas: uint8 [N, H, W, 3], as `clicv2.imaging.to_model_input` gives them.
            draw: the only source of randomness.
        """
        ...
