"""CLIC (arXiv 2411.12792, first 2408.03230), the predecessor: MoCo v2 + random crop and mix + complexity-aware loss.

The query is the whole picture, the key a mosaic of its parts (random crop and mix), contrasted with
a queue of other pictures' mosaics; beside that, the picture's activation energy is to be its global
entropy. From the authors' code: the whole picture as the query, the augmentation of the key (area
0.2 to 1, brightness, contrast, saturation and hue by 0.4, left-right mirror), T, m, the width of the
keys and the weight of the complexity-aware loss.

What papers and code leave open, and what is decided here:
- How crops and copies become a key: see `random_crop_mix`. The published training script has no mosaic
  at all, its key is one augmented copy; `mix: false` is that.
- The divisor c of the crops: 2, with which a large crop fills its quadrant at the picture's own scale.
- The projection: MoCo v2's of two layers, as the papers name MoCo v2; the published code has one.
- Energy and entropy are in units of log 256 nats, the largest entropy, so that the label-free output is
  what the loss trains. The authors weigh squared errors in nats by 0.25; in these units that is
  0.25 * log(256)^2 = 7.7.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from training.draw import Draw
from training.losses.complexity_aware import LARGEST_ENTROPY, complexity_aware_loss, correlation, global_entropy
from training.methods.momentum import MomentumContrast, MomentumSettings
from training.models.backbone import PATCH, Backbone
from training.models.heads import ActivationEnergy
from training.transforms.augment import colour_jitter, random_mirror, random_resized_crop
from training.transforms.random_crop_mix import random_crop_mix


@dataclass(frozen=True, slots=True)
class CLICSettings(MomentumSettings):
    """Settings of the method, beside those of `MomentumSettings`.

    Attributes:
        mix: random crop and mix; off, the key is one augmented copy of the picture.
        crop_divisor: c; crops have 1/c, 1/(2 c) and 1/(4 c) of the picture's side.
        area_low, area_high: share of the picture's area in an augmented copy.
        jitter, hue: see `augment.colour_jitter`; every copy is changed.
        complexity_weight: of the complexity-aware loss against the contrastive loss; the authors' 0.25, see above.
    """

    temperature: float = 0.07
    mix: bool = True
    crop_divisor: int = 2
    area_low: float = 0.2
    area_high: float = 1.0
    jitter: float = 0.4
    hue: float = 0.4
    complexity_weight: float = 7.7

    def __post_init__(self) -> None:
        MomentumSettings.__post_init__(self)  # super() does not find its class in a dataclass with slots
        if self.mix and self.view_size % (2 * PATCH):
            raise ValueError(f"a mosaic's seams fall between patches if view_size is a multiple of {2 * PATCH}")
        if self.crop_divisor < 1:
            raise ValueError(
                f"crop_divisor must be at least 1, got {self.crop_divisor}: crops are parts of the picture"
            )
        if self.complexity_weight < 0.0:
            raise ValueError(f"complexity_weight must be at least 0, got {self.complexity_weight}")


class CLIC:
    """The encoder and its key encoder with their queue, and the training step."""

    def __init__(self, encoder: Backbone, settings: CLICSettings):
        self.encoder = encoder
        self.momentum = MomentumContrast(encoder, settings)
        self.activation = ActivationEnergy(LARGEST_ENTROPY, clipped=True)
        self.label_free: nn.Module = self.activation
        self.module: nn.Module = self.momentum
        self.settings = settings

    def step(self, canvas: Tensor, draw: Draw) -> dict[str, Tensor]:
        images = canvas.permute(0, 3, 1, 2).float() / 255.0
        side = (self.settings.view_size, self.settings.view_size)
        query = F.interpolate(images, side, mode="bilinear", antialias=True, align_corners=False)
        features = self.encoder(query)
        contrast = self.momentum.contrast(features, self._key(images, draw))

        energy = self.activation.energy(features).mean(dim=1)  # [N]
        entropy = global_entropy(query)  # [N]
        complexity = complexity_aware_loss(energy, entropy)
        return {
            "loss": contrast.loss + self.settings.complexity_weight * complexity,
            "contrast": contrast.loss,
            "contrast_accuracy": contrast.accuracy,
            "complexity_aware": complexity,
            "energy_correlation": correlation(energy, entropy),
        }

    def _key(self, images: Tensor, draw: Draw) -> Tensor:
        """The positive sample of each image: [N, 3, H, W] -> [N, 3, view_size, view_size]."""
        s = self.settings
        if s.mix:
            return random_crop_mix(images, s.view_size, s.crop_divisor, self._augment, draw)
        return self._augment(images, s.view_size, draw)

    def _augment(self, images: Tensor, size: int, draw: Draw) -> Tensor:
        """An augmented copy of each image: [N, 3, H, W] -> [N, 3, size, size]."""
        s = self.settings
        copy = random_resized_crop(images, size, s.area_low, s.area_high, draw)
        return random_mirror(colour_jitter(copy, s.jitter, s.hue, 1.0, draw), draw)
