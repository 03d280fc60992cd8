"""The readout: patch features -> the complexity of each patch, whose mean is the image's score before calibration.

It is linear in the standardised features and their squares, patch by patch. The squares give the
mean over the patches a notion of energy and variety (as mean and standard-deviation pooling
would), and still every patch answers for its own share: the heatmap adds up to the score.

Beside what the encoder learned, it may look at what a transform coder would spend on each patch, a
classical measure that needs no labels either and is computed in the graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.models.encoder import PATCH, Encoder, Features
from training.transforms.code_length import code_lengths

PYRAMID = "pyramid"
CODE_LENGTH = "code_length"
# Standardised features end here: what no rated picture shows (pure noise has code lengths of 25
# deviations) must not carry a square with it to any score at all.
CLIP = 4.0
# Names of what a readout may look at: the stem's pyramid, the code lengths of the pixels, or a
# transformer block by its number from 0.
Layers = tuple[str | int, ...]


def select_layers(images: Tensor, features: Features, layers: Sequence[str | int]) -> list[Tensor]:
    """Patch features of each chosen layer: float32 [N, L, F] each.

    Args:
        images: [N, 3, H, W] in [0, 1], what `features` were made from.
    """
    return [_layer(images, features, layer).float() for layer in layers]


def _layer(images: Tensor, features: Features, layer: str | int) -> Tensor:
    if layer == PYRAMID:
        return features.pyramid
    if layer == CODE_LENGTH:
        return code_lengths(images, PATCH)
    if isinstance(layer, int) and 0 <= layer < len(features.blocks):
        return features.blocks[layer]
    raise ValueError(
        f"no layer {layer!r}: there are {CODE_LENGTH!r}, {PYRAMID!r} and the blocks 0 to {len(features.blocks) - 1}"
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """Logistic map from the mean cell to a score: sigmoid(slope * raw + intercept), strictly increasing."""

    slope: float = 1.0
    intercept: float = 0.0


class Readout(nn.Module):
    """Linear on standardised patch features and their squares.

    Args:
        layers: see `select_layers`.
        mean, scale: [F] standardisation.
        weight: [2 F], for the features, then for their squares.
        bias: of a cell.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, layers: Layers, mean: Tensor, scale: Tensor, weight: Tensor, bias: float):
        super().__init__()
        self.layers = layers
        for name, value in (("mean", mean), ("scale", scale), ("weight", weight), ("bias", torch.tensor(bias))):
            self.register_buffer(name, value.to(torch.float32))

    def design(self, images: Tensor, features: Features) -> Tensor:
        """What the weights apply to, [N, L, 2 F], of images [N, 3, H, W] in [0, 1] and their features."""
        raw = torch.cat(select_layers(images, features, self.layers), dim=2)  # [N, L, F]
        z = ((raw - self.mean) / self.scale).clamp(-CLIP, CLIP)
        return torch.cat([z, z.square()], dim=2)

    def forward(self, images: Tensor, features: Features) -> Tensor:
        """Local complexity before calibration: [N, L]."""
        return self.design(images, features) @ self.weight + self.bias


class ComplexityModel(nn.Module):
    """What is exported and served: uint8 pixels -> score, entropy, heatmap, embedding (see `clicv2.contract`).

    Normalisation, readout and calibration are inside, so a server only ships pixels. The heatmap's
    cells already carry the calibration's slope and intercept: score == sigmoid(mean(heatmap)).
    """

    def __init__(self, encoder: Encoder, entropy_head: nn.Module, readout: Readout, calibration: Calibration):
        super().__init__()
        self.encoder = encoder
        self.entropy_head = entropy_head
        self.readout = readout
        self.calibration = calibration

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Score [N], entropy [N], heatmap [N, h, w] and embedding [N, D] of uint8 images [N, H, W, 3]."""
        images = image.permute(0, 3, 1, 2).float() / 255.0
        features = self.encoder(images)
        cells = self.calibration.slope * self.readout(images, features) + self.calibration.intercept  # [N, L]
        score = torch.sigmoid(cells.mean(dim=1))
        entropy = self.entropy_head(features.last).mean(dim=(1, 2))
        return score, entropy, cells.unflatten(1, features.grid), features.last.mean(dim=1)
