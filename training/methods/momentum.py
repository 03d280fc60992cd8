"""What CLIC and MoCo v2 share: a key encoder that follows the query encoder, and a queue of its keys.

MoCo (arXiv 1911.05722) with the projection of MoCo v2 (arXiv 2003.04297). The key encoder moves
slowly, so that keys of many steps fit together, and the queue holds far more of them than a batch.

MoCo shuffles the images of a batch between processes before it encodes the keys, for batch
normalisation would tell a query which keys were normalised together with it. Nothing is shuffled here,
because no backbone here has batch statistics: the encoder has layer normalisation, and the ResNet group
normalisation in place of batch normalisation.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import distributed
from training.losses.info_nce import info_nce_loss
from training.losses.patch_contrastive import Contrast
from training.models.backbone import PATCH, Backbone, Features
from training.models.heads import ProjectionHead

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class MomentumSettings:
    """Settings that both methods have.

    Attributes:
        view_size: side of a view in pixels.
        queue: negatives kept, from the latest batches. The papers' 65,536 would hold every image of a
            small set several times over, as negatives of itself.
        momentum: m, the share of the key encoder that a step keeps. A recipe that works through its
            batches in parts (`optim.accumulate`) moves it at every part.
        temperature: T of the contrastive softmax.
        hidden, dim: width of the projection's hidden layer and of keys and queries.
    """

    view_size: int = 128
    queue: int = 4096
    momentum: float = 0.999
    temperature: float = 0.2
    hidden: int = 512
    dim: int = 128

    def __post_init__(self) -> None:
        if self.view_size % PATCH:
            raise ValueError(f"view_size must be a multiple of the patch size {PATCH}, got {self.view_size}")
        if not 0.0 <= self.momentum < 1.0:
            raise ValueError(f"momentum must be at least 0 and below 1, got {self.momentum}: keys would never move")
        if min(self.queue, self.temperature, self.hidden, self.dim) <= 0:
            raise ValueError("queue, temperature, hidden and dim must be above 0")


class MomentumContrast(nn.Module):
    """Query encoder, key encoder, their projections, and the queue; all of it is in a checkpoint.

    Args:
        encoder: of the queries, the one that is kept.
        settings: see `MomentumSettings`.
    """

    def __init__(self, encoder: Backbone, settings: MomentumSettings):
        super().__init__()
        self.encoder = encoder
        self.projection = ProjectionHead(encoder.dim, settings.hidden, settings.dim)
        self.key_encoder = frozen_copy(self.encoder)
        self.key_projection = frozen_copy(self.projection)
        self.queue = Queue(settings.queue, settings.dim)
        self._momentum = settings.momentum
        self._temperature = settings.temperature

    def contrast(self, queries: Features, keys: Tensor) -> Contrast:
        """Contrast the features of one view with another view of the same images, then queue its keys.

        Args:
            queries: of the query encoder.
            keys: [N, 3, H, W] in [0, 1].
        """
        query = _project(self.projection, queries)
        with torch.no_grad():
            follow(self.key_encoder, self.encoder, self._momentum)
            follow(self.key_projection, self.projection, self._momentum)
            key = _project(self.key_projection, self.key_encoder(keys))
        # A copy, for the backward pass comes after the queue has moved on.
        contrast = info_nce_loss(query, key, self.queue.keys.clone(), temperature=self._temperature)
        self.queue.add(distributed.gather(key))
        return contrast


class Queue(nn.Module):
    """The latest keys of all processes, oldest first from `oldest` on; a ring of fixed length.

    It starts with random directions, as MoCo's does. Until real keys have replaced them, `size` over
    the batch size steps, the contrast is easier than its figures say.

    Attributes:
        keys: [size, dim] unit vectors.
        oldest: [] place of the oldest key, the next to be replaced.
    """

    keys: Tensor
    oldest: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def add(self, keys: Tensor) -> None:
        """Replace the oldest keys by `keys` [B, dim], in their order; B need not divide the queue's length."""
        size = len(self.keys)
        places = (self.oldest + torch.arange(len(keys), device=keys.device)) % size  # [B]
        self.keys[places[-size:]] = keys[-size:].to(self.keys.dtype)  # of more than fit, the last
        self.oldest.copy_((self.oldest + len(keys)) % size)


def frozen_copy(module: ModuleT) -> ModuleT:
    """A copy that asks for no gradient."""
    return deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(follower: nn.Module, leader: nn.Module, momentum: float) -> None:
    """Move every weight of the follower: k <- m k + (1 - m) q."""
    for key, query in zip(follower.parameters(), leader.parameters(), strict=True):
        key.lerp_(query, 1.0 - momentum)


def _project(projection: ProjectionHead, features: Features) -> Tensor:
    """Unit vectors of the features' mean over the patches: float32 [N, dim]."""
    return F.normalize(projection(features.last.mean(dim=1)).float(), dim=1)
