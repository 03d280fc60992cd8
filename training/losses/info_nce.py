"""InfoNCE of whole images against a queue of negatives.

MoCo (arXiv 1911.05722): find the key of the same image among it and the keys of earlier images.
Unlike `patch_contrastive`, the batch's other images are no negatives: the queue has far more of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.distributed import even_share
from training.losses.patch_contrastive import Contrast


def info_nce_loss(queries: Tensor, keys: Tensor, negatives: Tensor, *, temperature: float) -> Contrast:
    """Contrast each query with its own key, against all negatives.

    Args:
        queries, keys: [N, D] unit vectors of this process's images.
        negatives: [K, D] unit vectors, the same in all processes.
        temperature: T of the softmax.
    """
    if queries.shape != keys.shape or queries.shape[1:] != negatives.shape[1:]:
        shapes = f"{tuple(queries.shape)}, {tuple(keys.shape)} and {tuple(negatives.shape)}"
        raise ValueError(f"queries, keys and negatives of {shapes} do not fit")
    # In bfloat16 similarities near 1 come in steps of 1/256; over a T of 0.07 that is 0.06 of a logit.
    with torch.autocast(queries.device.type, enabled=False):
        positive = (queries.float() * keys.float()).sum(dim=1, keepdim=True)  # [N, 1]
        negative = queries.float() @ negatives.float().T  # [N, K]
    logits = torch.cat([positive, negative], dim=1) / temperature  # [N, 1 + K]
    target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    count = even_share(torch.tensor(float(len(logits)), device=logits.device))
    # Above all negatives, not beside them: an encoder that gives every image the same key has none right.
    correct = (positive > negative.amax(dim=1, keepdim=True)).sum()
    return Contrast(F.cross_entropy(logits, target, reduction="sum") / count, correct / count)
