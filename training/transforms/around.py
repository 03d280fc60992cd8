"""The 3 x 3 patches around each patch; beyond the border a picture goes on as at the border.

Written for planes whose channels lie together, as tokens have them: `F.pad`, `F.unfold` and pooling want each channel's
plane, and with these, variety and the windows of coding rates took twice as long on ONNX Runtime.
"""

import torch
from torch import Tensor


def extend(plane: Tensor) -> Tensor:
    """One patch more on each side: [N, h, w, F] -> [N, h + 2, w + 2, F]."""
    plane = torch.cat([plane[:, :1], plane, plane[:, -1:]], dim=1)
    return torch.cat([plane[:, :, :1], plane, plane[:, :, -1:]], dim=2)


def mean_around(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean of the patches around each, of a grid of (rows, columns): [N, L, F] -> [N, L, F]."""
    n, length, width = patches.shape
    rows, columns = grid
    down = _thirds(rows).to(patches) @ patches.reshape(n, rows, columns * width)
    across = _thirds(columns).to(patches) @ down.view(n, rows, columns, width)
    return across.view(n, length, width)


def _thirds(count: int) -> Tensor:
    """[count, count]: the mean of each of so many in a row and those beside it, as a product of matrices."""
    ones = torch.eye(count)
    return (ones + torch.cat([ones[:1], ones[:-1]]) + torch.cat([ones[1:], ones[-1:]])) / 3
