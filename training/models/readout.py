"""The readout: patch features -> the complexity of each patch, whose mean is the image's score before calibration.

It is linear in the standardised features alone (a linear probe, the field's usual measure of frozen
features), or also in a second term of each, patch by patch: its square, which gives the mean over
the patches a notion of energy (as mean and standard-deviation pooling would), or its variety, how
far it is from the mean of the 3 x 3 patches around it. Variety is what people count and averages do
not see: many different things side by side. On the dev half of SAVOIAS it brings code lengths alone
from a PCC of .690 to .739, and all features from .778 to .795. Every patch still answers for its own
share, and the heatmap adds up to the score; but what variety brings is spread evenly over the
picture, for it belongs to no single patch: left where it arises, it marks a flat patch beside a busy
one (on composed pictures the area under the ROC curve of an earlier model fell from .992 to .940).

A readout may also say something of the picture as a whole (see `training.models.similarity`). Its linear weights then
say little, and a map of them is pale: how the cells of a picture differ is left to those of a readout without it, of
what patches show by themselves (see `training.fit`), and the cells' mean is moved to the score.

Beside what the encoder learned, it may look at what a transform coder would spend on each patch, and at how much
that differs from patch to patch: classical measures that need no labels either and are computed in the graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.models.backbone import Backbone, Features
from training.models.computed import Computed
from training.models.similarity import Similarity
from training.transforms.around import mean_around

PYRAMID = "pyramid"
CODE_LENGTH = "code_length"
CODING_RATE = "coding_rate"
# Standardised features end here: what no rated picture shows (pure noise has code lengths of 25
# deviations) must not carry a square with it to any score at all.
CLIP = 4.0
# Names of what a readout may look at: the stem's pyramid, the code lengths of the pixels, how much those
# differ (coding rates), or a transformer block by its number from 0.
Layers = tuple[str | int, ...]
Kind = Literal["linear", "quadratic", "variety"]
# Weights of each feature: its own, and that of its square or its variety.
TERMS: dict[Kind, int] = {"linear": 1, "quadratic": 2, "variety": 2}


def select_layers(computed: Computed, features: Features, layers: Sequence[str | int]) -> list[Tensor]:
    """Patch features of each chosen layer, of the same images computed and learned: float32 [N, L, F] each."""
    return [_layer(computed, features, layer).float() for layer in layers]


def _layer(computed: Computed, features: Features, layer: str | int) -> Tensor:
    if layer == PYRAMID:
        return features.pyramid
    if layer == CODE_LENGTH:
        return computed.code_lengths
    if layer == CODING_RATE:
        return computed.coding_rates[:, None].expand(-1, features.last.shape[1], -1)
    if isinstance(layer, int) and 0 <= layer < len(features.blocks):
        return features.blocks[layer]
    raise ValueError(
        f"no layer {layer!r}: there are {CODE_LENGTH!r}, {CODING_RATE!r}, {PYRAMID!r} and the blocks 0 to "
        f"{len(features.blocks) - 1}"
    )


def variety(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """How far each feature of each patch is from its mean over the 3 x 3 patches around it: [N, L, F] -> [N, L, F].

    Beyond the border the picture goes on as at the border.
    """
    return (features - mean_around(features, grid)).abs()


def _mean(features: Tensor) -> Tensor:
    """Over the patches: [N, L, F] -> [N, F]. As a product, with which ONNX Runtime takes a quarter of `mean`'s time."""
    length = features.shape[1]
    return (torch.full((1, length), 1 / length).to(features) @ features).squeeze(1)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Logistic map from the mean cell to a score: sigmoid(slope * raw + intercept), strictly increasing."""

    slope: float = 1.0
    intercept: float = 0.0


class Readout(nn.Module):
    """Linear on standardised patch features and, by its kind, on their squares or their variety.

    Weight and bias are parameters, so that fine-tuning can train them, but ask for no gradient before that.

    Args:
        layers: see `select_layers`.
        mean, scale: [F] standardisation.
        weight: [F], or [2 F] for the features, then for their second terms.
        bias: of a cell.
        kind: which of the three. Raises ValueError when the weights are too many or too few for it.
        similarity: of the picture's average design, added to the score.
        pattern: like `weight`; with similarity, by what cells differ from their mean, for which those of variety, which
            is of no cell, have no say.
    """

    mean: Tensor
    scale: Tensor
    pattern: Tensor

    def __init__(
        self,
        layers: Layers,
        mean: Tensor,
        scale: Tensor,
        weight: Tensor,
        bias: float,
        kind: Kind = "variety",
        similarity: Similarity | None = None,
        pattern: Tensor | None = None,
    ):
        super().__init__()
        if len(weight) != TERMS[kind] * len(mean):
            raise ValueError(f"a {kind} readout of {len(mean)} features cannot have {len(weight)} weights")
        self.layers = layers
        self.kind = kind
        self.register_buffer("mean", mean.to(torch.float32))
        self.register_buffer("scale", scale.to(torch.float32))
        self.weight = nn.Parameter(weight.to(torch.float32), requires_grad=False)
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float32), requires_grad=False)
        self.similarity = similarity
        if similarity is not None:
            if pattern is None:
                raise ValueError("a readout with similarity needs a pattern")
            self.register_buffer("pattern", pattern.to(torch.float32))

    def design(self, computed: Computed, features: Features) -> Tensor:
        """What the weights apply to: [N, L, F or 2 F]."""
        return torch.cat(self._terms(computed, features), dim=2)

    def _terms(self, computed: Computed, features: Features) -> list[Tensor]:
        """Of each feature: its own, and its square or its variety; [N, L, F] each."""
        raw = torch.cat(select_layers(computed, features, self.layers), dim=2)
        z = ((raw - self.mean) / self.scale).clamp(-CLIP, CLIP)
        if self.kind == "linear":
            return [z]
        return [z, z.square() if self.kind == "quadratic" else variety(z, features.grid)]

    def forward(self, computed: Computed, features: Features) -> Tensor:
        """Local complexity before calibration: [N, L]."""
        terms = self._terms(computed, features)
        pooled = torch.cat([_mean(term) for term in terms], dim=1)  # [N, F or 2 F]
        raw = pooled @ self.weight + self.bias  # [N]
        if self.similarity is not None:
            raw = raw + self.similarity(pooled)
        # What variety brings is of no patch, and so not of what cells differ by.
        shown = terms[0] if self.kind == "variety" else torch.cat(terms, dim=2)
        pattern = self.weight if self.similarity is None else self.pattern
        # Not a product of matrices, with which ONNX Runtime takes several times as long for a single column.
        own = (shown * pattern[: shown.shape[2]]).sum(dim=2)
        return own - own.mean(dim=1, keepdim=True) + raw[:, None]


class ComplexityModel(nn.Module):
    """What is exported and served: uint8 pixels -> score, entropy, heatmap, embedding (see `clicv2.contract`).

    Normalisation, readout and calibration are inside, so a server only ships pixels. The heatmap's
    cells already carry the calibration's slope and intercept: score == sigmoid(mean(heatmap)).
    """

    def __init__(self, encoder: Backbone, label_free: nn.Module, readout: Readout, calibration: Calibration):
        super().__init__()
        self.encoder = encoder
        self.label_free = label_free
        self.readout = readout
        self.calibration = calibration

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Score [N], entropy [N], heatmap [N, h, w] and embedding [N, D] of uint8 images [N, H, W, 3]."""
        images = image.permute(0, 3, 1, 2).float() / 255.0
        computed, features = Computed(images), self.encoder(images)
        cells = self.calibration.slope * self.readout(computed, features) + self.calibration.intercept  # [N, L]
        score = torch.sigmoid(cells.mean(dim=1))
        entropy = self.label_free(computed, features).mean(dim=1)
        return score, entropy, cells.unflatten(1, features.grid), features.last.mean(dim=1)
