"""Complexity-aware loss: an image's activation energy should be its global entropy.

CLIC (arXiv 2411.12792): the contrast alone tells images apart by whatever it likes; this ties how
strongly an image excites the encoder to how much information its grey levels hold. Both are in
units of the largest entropy, so that they are in [0, 1].

The authors' code takes the histogram over [0, 1] of pixels that were normalised before, so that it
counts greys of about 0.45 to 0.67 alone; here it is that of the pixels themselves, as the paper has
it. Their code also sets aside what is not finite; here that stops the run, as in every method.
"""

import math

import torch
from torch import Tensor

from training import distributed
from training.transforms.entropy import histogram_entropy

BINS = 256
# Entropy of a flat histogram, in nats.
LARGEST_ENTROPY = math.log(BINS)


def global_entropy(images: Tensor) -> Tensor:
    """Shannon entropy of each image's grey levels (the mean of R, G and B), in units of the largest.

    Args:
        images: [N, 3, H, W] in [0, 1].

    Returns: float32 [N] in [0, 1].
    """
    count = len(images)
    levels = (images.mean(dim=1) * BINS).long().clamp(0, BINS - 1).flatten(1)  # [N, H * W]
    image = torch.arange(count, device=images.device)[:, None] * BINS
    histograms = torch.bincount((levels + image).flatten(), minlength=count * BINS).view(count, BINS, 1, 1)
    return histogram_entropy(histograms.float(), BINS).flatten()


def complexity_aware_loss(energy: Tensor, entropy: Tensor) -> Tensor:
    """Mean squared error between energies and entropies of this process's images: [N], [N] -> []."""
    error = (energy.float() - entropy).square()
    return error.sum() / distributed.even_share(torch.tensor(float(len(error)), device=error.device))


@torch.no_grad()
def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation over the images of all processes: [N], [N] -> []; 0 where one of them is constant."""
    both = distributed.gather(torch.stack([first.float(), second.float()], dim=1))  # [ranks * N, 2]
    centred = both - both.mean(dim=0)
    spread = centred.square().sum(dim=0).sqrt().prod()
    return centred.prod(dim=1).sum() / spread.clamp(min=torch.finfo(both.dtype).eps)
