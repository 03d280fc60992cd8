"""What is left of ratings within their groups after a prediction: the loss of fine-tuning.

A group has an offset and a scale of its own. The scale is taken out of the ratings beforehand (see
`data.ratings.standardise_within`: with the figures of all training images, not of the few in a
batch); the offset drops out here, for only differences between images of the same group count. A
correlation would be free of both by itself, but over the five or so images of a group that a batch
holds it is a biased estimate of the whole group's, and its gradient explodes where the predictions
agree. The variance is unbiased at any number of images from two on, so the mean over many small
batches is the loss over whole groups: the one that `training.ridge` minimises, where fine-tuning
starts.
"""

import torch.nn.functional as F
from torch import Tensor


def residual_variance(predicted: Tensor, target: Tensor, groups: Tensor) -> Tensor:
    """Variance of `target - predicted` within each group, averaged over the groups of two images or more.

    Equals, for each group, half the mean squared difference between the residuals of two images. 0 without any
    such group.

    Args:
        predicted, target: [N].
        groups: int64 [N], from 0.
    """
    member = F.one_hot(groups).to(predicted.dtype)  # [N, G]
    count = member.sum(dim=0)  # [G]
    residual = target - predicted
    mean = (residual @ member) / count.clamp(min=1.0)
    squares = (residual - mean[groups]).square() @ member
    variance = squares / (count - 1.0).clamp(min=1.0)
    chosen = (count >= 2.0).to(predicted.dtype)
    return (variance * chosen).sum() / chosen.sum().clamp(min=1.0)
