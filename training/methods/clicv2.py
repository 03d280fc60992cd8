"""CLICv2 (arXiv 2503.06641): shifted patchify + patch-wise contrastive loss + masked entropy modelling.

One step sees two views of each image, the second shifted against the first, both partly masked.
Masked patches are asked for their entropies; patches that are visible in both views are contrasted
with those at the same position of the other. Each of the three parts can be switched off.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.draw import Draw
from training.losses.masked_entropy import explained_variance, masked_entropy_loss
from training.losses.patch_contrastive import Contrast, patch_contrastive_loss
from training.models.backbone import PATCH, Backbone, Features
from training.models.heads import EntropyHead, ProjectionHead
from training.transforms.augment import jitter, random_flips, random_resize
from training.transforms.information import FAMILIES, patch_information
from training.transforms.masking import random_mask
from training.transforms.shifted_patchify import shifted_patches, shifted_views


@dataclass(frozen=True, slots=True)
class CLICv2Settings:
    """Settings of the method.

    Attributes:
        shifted_patchify: off, both views show the same pixels but for their colours.
        shift_by: one shift for each "image", or one for each "patch" of it.
        contrast: the contrastive loss.
        contrast_by: "patch", or "image" for the usual contrast of whole images, for comparison.
        masked_entropy: masked entropy modelling.
        view_size: side of a view in pixels.
        shift_low, shift_high: distance of the shift in pixels along each axis. Below half a patch
            (8) the positive pair shows the same content and the contrast is trivial.
        jitter, grey_share: see `augment.jitter`, drawn for each view.
        scale_low, scale_high: the canvas is resized by a factor in this range, one for each batch, so
            that the features hold at several scales.
        temperature: T of the contrastive softmax.
        contrast_weight: of the contrastive loss against the masked-entropy loss.
        exclude_radius: see `patch_contrastive_loss`.
        query_share: share of the patches that are visible in both views used as queries; all are keys.
        mask_low, mask_high: see `random_mask`.
        visible_weight: see `masked_entropy_loss`.
    """

    shifted_patchify: bool = True
    shift_by: Literal["image", "patch"] = "image"
    contrast: bool = True
    contrast_by: Literal["patch", "image"] = "patch"
    masked_entropy: bool = True
    view_size: int = 128
    shift_low: int = 16
    shift_high: int = 32
    jitter: float = 0.3
    grey_share: float = 0.1
    scale_low: float = 0.85
    scale_high: float = 1.35
    temperature: float = 0.2
    contrast_weight: float = 0.03
    exclude_radius: int = 2
    query_share: float = 0.5
    mask_low: float = 0.0
    mask_high: float = 0.75
    visible_weight: float = 0.5

    def __post_init__(self) -> None:
        if not (self.contrast or self.masked_entropy):
            raise ValueError("contrast and masked_entropy are both off: there is nothing to learn")
        if self.view_size % PATCH:
            raise ValueError(f"view_size must be a multiple of the patch size {PATCH}, got {self.view_size}")
        if self.shifted_patchify and self.shift_low < PATCH // 2:
            raise ValueError(f"shift_low {self.shift_low} is under half a patch ({PATCH // 2}): a trivial contrast")


class CLICv2:
    """The encoder with its two heads, and the training step."""

    def __init__(self, encoder: Backbone, settings: CLICv2Settings):
        self.encoder = encoder
        self.entropy_head = EntropyHead(encoder.dim)
        self.label_free: nn.Module = self.entropy_head
        self.projection = ProjectionHead(encoder.dim)
        self.module: nn.Module = nn.ModuleDict(
            {"encoder": self.encoder, "entropy_head": self.entropy_head, "projection": self.projection}
        )
        self.settings = settings

    def step(self, canvas: Tensor, draw: Draw) -> dict[str, Tensor]:
        s = self.settings
        views = self._views(random_flips(canvas.permute(0, 3, 1, 2).float() / 255.0, draw), draw)
        shape = (len(canvas), (s.view_size // PATCH) ** 2)
        masks = [self._mask(shape, draw).to(canvas.device) for _ in views]
        features = [self.encoder(view, mask) for view, mask in zip(views, masks, strict=True)]

        measures: dict[str, Tensor] = {}
        if s.masked_entropy:
            # In full precision: bf16 would round away what little a calm patch holds.
            with torch.autocast(canvas.device.type, enabled=False):
                target = torch.cat([patch_information(view, PATCH) for view in views])  # [2 N, L, 77]
            predicted = self.entropy_head.predict(torch.cat([f.last for f in features]))
            mask = torch.cat(masks)
            measures["masked_entropy"] = masked_entropy_loss(
                predicted, target, mask, FAMILIES, visible_weight=s.visible_weight
            )
            measures["entropy_r2"] = explained_variance(predicted, target, mask)
        if s.contrast:
            contrast = self._contrast(features, masks, draw)
            measures["contrast"] = contrast.loss
            measures["contrast_accuracy"] = contrast.accuracy
        weight = s.contrast_weight if s.masked_entropy else 1.0
        loss = measures.get("masked_entropy", 0.0) + weight * measures.get("contrast", torch.tensor(0.0))
        return {"loss": loss, **measures}

    def _views(self, images: Tensor, draw: Draw) -> list[Tensor]:
        """Two views of images [N, 3, H, W]: [N, 3, view_size, view_size] each."""
        s = self.settings
        low, high = (s.shift_low, s.shift_high) if s.shifted_patchify else (0, 0)
        if s.shift_by == "patch":
            images = random_resize(images, s.scale_low, s.scale_high, s.view_size + 2 * high, draw)
            shifted = shifted_patches(images, s.view_size, PATCH, low, high, draw)
        else:
            images = random_resize(images, s.scale_low, s.scale_high, s.view_size + high, draw)
            shifted = shifted_views(images, s.view_size, low, high, draw)
        return [jitter(view, s.jitter, s.grey_share, draw) for view in (shifted.first, shifted.second)]

    def _contrast(self, features: list[Features], masks: list[Tensor], draw: Draw) -> Contrast:
        s = self.settings
        if s.contrast_by == "image":  # a grid of one patch: the mean over those that are kept
            kept = [(~mask).unsqueeze(2).float() for mask in masks]  # [N, L, 1]
            means = [
                (f.last * k).sum(dim=1, keepdim=True) / k.sum(dim=1, keepdim=True)
                for f, k in zip(features, kept, strict=True)
            ]
            first, second = (self.projection(mean) for mean in means)
            return patch_contrastive_loss(first, second, (1, 1), temperature=s.temperature)
        first, second = (self.projection(f.last) for f in features)
        drawn = draw.uniform(*masks[0].shape).to(first.device) < s.query_share
        return patch_contrastive_loss(
            first,
            second,
            features[0].grid,
            temperature=s.temperature,
            exclude_radius=s.exclude_radius if s.shifted_patchify else 0,
            chosen=drawn & ~(masks[0] | masks[1]),
        )

    def _mask(self, shape: tuple[int, int], draw: Draw) -> Tensor:
        if not self.settings.masked_entropy:
            return torch.zeros(shape, dtype=torch.bool)
        return random_mask(*shape, self.settings.mask_low, self.settings.mask_high, draw)
