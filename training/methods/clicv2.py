"""CLICv2 (arXiv 2503.06641): shifted patchify + patch-wise contrastive loss + masked entropy modelling.

One step sees two views of each image. The second is shifted against the first and partly masked:
its masked patches are asked for their entropies, its visible ones are contrasted with the patches
at the same positions of the first view. Each of the three parts can be switched off.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.losses.masked_entropy import explained_variance, masked_entropy_loss
from training.losses.patch_contrastive import patch_contrastive_loss
from training.models.encoder import PATCH, Encoder
from training.models.heads import EntropyHead, ProjectionHead
from training.transforms.entropy import TARGETS, patch_entropies
from training.transforms.masking import random_mask
from training.transforms.photometric import jitter, random_flips
from training.transforms.shifted_patchify import shifted_views


@dataclass(frozen=True, slots=True)
class CLICv2Settings:
    """Settings of the method.

    Attributes:
        shifted_patchify: off, both views show the same pixels but for their colours.
        contrast: the patch-wise contrastive loss.
        masked_entropy: masked entropy modelling.
        view_size: side of a view in pixels.
        shift_low, shift_high: distance of the shift in pixels along each axis. Below half a patch
            (8) the positive pair shows the same content and the contrast is trivial.
        jitter: strength of the colour changes, drawn for each view.
        temperature: T of the contrastive softmax.
        contrast_weight: of the contrastive loss against the masked-entropy loss.
        exclude_radius: see `patch_contrastive_loss`.
        query_share: share of the patches used as queries; all are keys.
        mask_ratio: share of the second view's patches that is removed.
        visible_weight: see `masked_entropy_loss`.
    """

    shifted_patchify: bool = True
    contrast: bool = True
    masked_entropy: bool = True
    view_size: int = 128
    shift_low: int = 12
    shift_high: int = 24
    jitter: float = 0.2
    temperature: float = 0.1
    contrast_weight: float = 0.03
    exclude_radius: int = 2
    query_share: float = 0.25
    mask_ratio: float = 0.5
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

    def __init__(self, encoder: Encoder, settings: CLICv2Settings):
        self.encoder = encoder
        self.entropy_head: nn.Module = EntropyHead(encoder.dim, len(TARGETS))
        self.projection = ProjectionHead(encoder.dim)
        self.module: nn.Module = nn.ModuleDict(
            {"encoder": self.encoder, "entropy_head": self.entropy_head, "projection": self.projection}
        )
        self.settings = settings

    def step(self, canvas: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        s = self.settings
        images = random_flips(canvas.permute(0, 3, 1, 2).float() / 255.0, generator)  # [N, 3, H, W]
        low, high = (s.shift_low, s.shift_high) if s.shifted_patchify else (0, 0)
        views = shifted_views(images, s.view_size, low, high, generator)
        second = jitter(views.second, s.jitter, generator)
        length = (s.view_size // PATCH) ** 2
        mask = random_mask(len(canvas), length, s.mask_ratio if s.masked_entropy else 0.0, generator).to(canvas.device)
        seen = self.encoder(second, mask)

        measures: dict[str, Tensor] = {}
        loss = torch.zeros((), device=canvas.device)
        if s.masked_entropy:
            target = patch_entropies(second, PATCH)  # [N, L, 12]
            predicted = self.entropy_head(seen.last)
            measures["masked_entropy"] = masked_entropy_loss(predicted, target, mask, visible_weight=s.visible_weight)
            measures["entropy_r2"] = explained_variance(predicted, target, mask)
            loss = loss + measures["masked_entropy"]
        if s.contrast:
            first = self.encoder(jitter(views.first, s.jitter, generator))
            chosen = torch.rand(mask.shape, generator=generator).to(canvas.device) < s.query_share
            contrast = patch_contrastive_loss(
                self.projection(seen.last),
                self.projection(first.last),
                seen.grid,
                temperature=s.temperature,
                exclude_radius=s.exclude_radius if s.shifted_patchify else 0,
                chosen=chosen & ~mask,
            )
            measures["contrast"] = contrast.loss
            measures["contrast_accuracy"] = contrast.accuracy
            loss = loss + (s.contrast_weight if s.masked_entropy else 1.0) * contrast.loss
        return {"loss": loss, **measures}
