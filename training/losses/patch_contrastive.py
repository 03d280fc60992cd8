"""Patch-wise contrastive loss: InfoNCE between patches at the same position of two views.

CLICv2 (arXiv 2503.06641): contrasting patches rather than whole images makes the representation
local, and the positive pair carries other content at about the same complexity. Negatives are
the other patches of the same image and all patches of the other images in the batch, among them
those at the very same position, so that knowing the position does not help. Where several
processes share a batch, the keys of all of them are gathered, so the loss is that of one process.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training import distributed


@dataclass(frozen=True, slots=True)
class Contrast:
    """Attributes: loss, and the share of queries whose positive has the highest similarity (accuracy)."""

    loss: Tensor
    accuracy: Tensor


def patch_contrastive_loss(
    queries: Tensor,
    keys: Tensor,
    grid: tuple[int, int],
    *,
    temperature: float,
    exclude_radius: int = 0,
    chosen: Tensor | None = None,
) -> Contrast:
    """Contrast each query patch with the key patch at its position, against all other key patches.

    Args:
        queries, keys: [N, L, D] projections of the two views, of any length; they are normalised here.
        grid: rows and columns, L = rows * columns.
        temperature: T of the softmax.
        exclude_radius: patches of the same image within this Chebyshev distance of the positive
            are neither positive nor negative: under a shift of about a patch they show the
            query's own content, and pushing that away would contradict the pull.
        chosen: bool [N, L], the queries that count; None for all.
    """
    n, length, dim = keys.shape
    if queries.shape != keys.shape or length != grid[0] * grid[1]:
        raise ValueError(f"queries {tuple(queries.shape)}, keys {tuple(keys.shape)} and grid {grid} do not fit")
    position = torch.arange(n * length, device=keys.device)  # of each patch in this process's images
    if chosen is not None:
        position = position[chosen.flatten()]
    q = F.normalize(queries.reshape(-1, dim)[position], dim=1)  # [Q, D]
    k = distributed.gather(F.normalize(keys.reshape(-1, dim), dim=1))  # [ranks * N * L, D]
    position = position + distributed.rank() * n * length  # among the keys of all processes
    logits = (q @ k.T).float() / temperature  # [Q, ranks * N * L]
    if exclude_radius > 0:
        near = _neighbours(grid, exclude_radius).to(keys.device)[position % length]  # [Q, L]
        own_image = (position // length)[:, None] * length + torch.arange(length, device=keys.device)  # [Q, L]
        ignored = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, own_image, near)
        logits = logits.masked_fill(ignored, float("-inf"))
    # No query at all (everything was masked) is no loss, and no NaN.
    count = distributed.even_share(torch.tensor(float(len(position)), device=keys.device)).clamp(min=1e-9)
    correct = (logits.detach().argmax(dim=1) == position).sum()
    return Contrast(F.cross_entropy(logits, position, reduction="sum") / count, correct / count)


def _neighbours(grid: tuple[int, int], radius: int) -> Tensor:
    """Which patches of a grid lie within `radius` of each other, itself not counted: bool [L, L]."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    place = torch.stack([rows.flatten(), columns.flatten()], dim=1)  # [L, 2]
    distance = (place[:, None] - place[None, :]).abs().amax(dim=2)  # [L, L]
    return (distance > 0) & (distance <= radius)
