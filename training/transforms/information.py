"""The target of masked entropy modelling: how much information each patch holds, measured in 72 ways.

Entropies of histograms know nothing of the order of the pixels; the code lengths of a transform
coder do (they are the entropy that remains once neighbouring pixels are no longer independent), and
agree with people where the entropies do not. Both need no labels.
"""

import torch
from torch import Tensor

from training.transforms import code_length, entropy

TARGETS = (*entropy.TARGETS, *code_length.FEATURES)
# Bits a coefficient, by band, that the busiest patches of photographs reach: they bring the code
# lengths to the entropies' range, so that both have the same say in the loss and in the mean.
MOST_BITS = (6.0, 4.5, 3.0)


def patch_information(images: Tensor, patch: int) -> Tensor:
    """Entropies and code lengths of each patch in [0, 1]: [N, L, 72], in the order of `TARGETS`.

    Args:
        images: RGB [N, 3, H, W] in [0, 1].
        patch: side of a patch in pixels, a multiple of 8 that divides H and W.
    """
    most = torch.tensor(MOST_BITS, device=images.device).repeat(len(code_length.FEATURES) // len(MOST_BITS))
    bits = code_length.code_lengths(images, patch) / most
    return torch.cat([entropy.patch_entropies(images, patch), bits.clamp(max=1.0)], dim=2)
