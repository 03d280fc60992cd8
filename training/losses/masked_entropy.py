"""Masked entropy modelling: predict the entropies of removed patches from the patches that were kept.

CLICv2 (arXiv 2503.06641): masked image modelling whose target is not the pixels but how much
information they hold, so that the encoder learns complexity and not content.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.distributed import even_share


def masked_entropy_loss(
    predicted: Tensor, target: Tensor, mask: Tensor, families: Sequence[int], *, visible_weight: float = 0.0
) -> Tensor:
    """Mean squared error over the removed patches, plus a share of that over the kept ones.

    Args:
        predicted, target: [N, L, K] measures in [0, 1].
        mask: bool [N, L]; 1 for removed patches.
        families: see `family_mean`.
        visible_weight: weight of the kept patches. At inference nothing is masked, so the
            label-free score is read from kept patches alone: a little weight here trains that case.
    """
    error = family_mean((predicted.float() - target).square(), families)  # [N, L]
    loss = _mean_over(error, mask)
    if visible_weight > 0.0:
        loss = loss + visible_weight * _mean_over(error, ~mask)
    return loss


def family_mean(values: Tensor, families: Sequence[int]) -> Tensor:
    """Mean over families of measures, however many measures each has: [..., K] -> [...].

    Args:
        families: how many of the K measures, in their order, belong to each family.
    """
    means = [family.mean(dim=-1) for family in torch.split(values, list(families), dim=-1)]
    return torch.stack(means).mean(dim=0)


def _mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    weights = chosen.to(values.dtype)
    return (values * weights).sum() / even_share(weights.sum()).clamp(min=torch.finfo(values.dtype).tiny)


def explained_variance(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Share of the target's variance over removed patches that the prediction explains; 1 is perfect, 0 the mean."""
    p, t = predicted.detach().float()[mask], target[mask]  # [M, K]
    return 1.0 - (p - t).square().sum() / (t - t.mean(dim=0)).square().sum().clamp(min=torch.finfo(t.dtype).eps)
