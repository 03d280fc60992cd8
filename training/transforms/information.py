"""The target of masked entropy modelling: how much information each patch holds, measured in 77 ways.

Four families that err differently. Entropies of histograms know nothing of the order of the pixels;
the code lengths of a transform coder do (they are the entropy that remains once neighbouring pixels
are no longer independent); junctions of regions count things and are blind to texture; coding rates
say how much a patch and those around it differ, and nothing of how busy they are. None needs labels.
"""

import torch
from torch import Tensor

from training.transforms import code_length, coding_rate, entropy, junctions

JUNCTIONS = tuple(f"junctions@{window or 'whole'}" for window in entropy.WINDOWS)
RATES = tuple(f"rate/{shrink}@{coding_rate.WINDOW}" for shrink in code_length.SHRINKS[: coding_rate.PATCH_SCALES])
TARGETS = (*entropy.TARGETS, *code_length.FEATURES, *JUNCTIONS, *RATES)
FAMILIES = (len(entropy.TARGETS), len(code_length.FEATURES), len(JUNCTIONS), len(RATES))
# Bits a coefficient, by band, that the busiest patches of photographs reach: they bring the code
# lengths to the entropies' range, so that both have the same say in the loss and in the mean.
MOST_BITS = (6.0, 4.5, 3.0)
# Nats a vector and dimension, by scale: nine rated pictures in ten have no patch with more.
MOST_RATES = (1.2, 1.6)


def patch_information(images: Tensor, patch: int) -> Tensor:
    """Entropies, code lengths, junctions and coding rates of each patch in [0, 1]: [N, L, 77], as `TARGETS` has them.

    Args:
        images: RGB [N, 3, H, W] in [0, 1].
        patch: side of a patch in pixels, a multiple of 8 that divides H and W.
    """
    grid = (images.shape[2] // patch, images.shape[3] // patch)
    lengths = code_length.code_lengths(images, patch)
    rates = coding_rate.patch_rates(lengths, grid) / torch.tensor(MOST_RATES, device=images.device)
    density = junctions.junction_density(images, patch).view(-1, *grid)  # [N, h, w]
    windows = [entropy.pool_window(density.unsqueeze(1), window).expand(-1, 1, *grid) for window in entropy.WINDOWS]
    meeting = torch.cat(windows, dim=1).flatten(2).transpose(1, 2)  # [N, L, 3]
    measures = [entropy.patch_entropies(images, patch), share_of_most_bits(lengths), meeting, rates.clamp(max=1.0)]
    return torch.cat(measures, dim=2)


def share_of_most_bits(lengths: Tensor) -> Tensor:
    """Code lengths [N, L, 36] in the range of the other measures, [0, 1]."""
    most = torch.tensor(MOST_BITS, device=lengths.device).repeat(len(code_length.FEATURES) // len(MOST_BITS))
    return (lengths / most).clamp(max=1.0)
