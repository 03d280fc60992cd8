"""Random masks over the patch grid; 1 means removed, 0 means kept."""

from torch import Tensor

from training.draw import Draw


def random_mask(count: int, patches: int, low: float, high: float, draw: Draw) -> Tensor:
    """Remove a share of the patches of each image, drawn between `low` and `high`: bool [count, patches].

    A range rather than one ratio, so that the encoder also meets images that are nearly whole, as
    they all are at inference.
    """
    if not 0.0 <= low <= high < 1.0:
        raise ValueError(f"mask ratios must satisfy 0 <= low <= high < 1, got {low} and {high}")
    ratio = low + (high - low) * draw.uniform(count, 1)  # [N, 1]
    order = draw.uniform(count, patches).argsort(dim=1)  # [N, L]
    return order.argsort(dim=1) < (ratio * patches).round()
