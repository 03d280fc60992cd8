"""Random masks over the patch grid; 1 means removed, 0 means kept."""

import torch
from torch import Tensor


def random_mask(count: int, patches: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Remove the same number of patches, round(ratio * patches), from each image: bool [count, patches]."""
    if not 0.0 <= ratio < 1.0:
        raise ValueError(f"the mask ratio must be at least 0 and below 1, got {ratio}")
    removed = round(ratio * patches)
    order = torch.rand(count, patches, generator=generator).argsort(dim=1)  # [N, L]
    return order.argsort(dim=1) < removed
