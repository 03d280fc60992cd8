"""How much the patches of a picture differ, as information: what it would cost to tell them apart.

The coding rate of a set of vectors (Ma et al., Segmentation of multivariate mixed data via lossy coding and
compression, PAMI 2007; maximal coding rate reduction, arXiv 2006.08558) is the number of nats a vector that a Gaussian
code needs, up to a given distortion: 1/2 log det(I + covariance / distortion). Here the vectors are the code lengths
of patches. Each says how busy its patch is; their coding rate says how many kinds of busy there are, and is 0 for the
densest texture if it is the same everywhere. That is what entropies, code lengths and junctions, which are averages
over patches, leave out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.transforms.code_length import BANDS, CHANNELS, FEATURES, SHRINKS

# Of bits a coefficient, squared. From .001 to .01 the measure agrees with people equally well (to .002).
DISTORTION = 0.003
# Side of the neighbourhood of a patch, in patches.
WINDOW = 3
_SCALE = len(CHANNELS) * len(BANDS)  # numbers of one scale, which lie together
_SCALES = tuple(f"1/{shrink}" for shrink in SHRINKS)
_LOCAL = tuple(f"{scale}@{WINDOW}" for scale in (*_SCALES, "all"))
NAMES = (
    *(f"mean of {name}" for name in _LOCAL),
    *(f"deviation of {name}" for name in _LOCAL),
    *(f"{scale}@whole" for scale in _SCALES),
)


def coding_rates(lengths: Tensor, grid: tuple[int, int]) -> Tensor:
    """How much the neighbourhoods of a picture's patches differ in themselves, how unequally they do, and the whole.

    They are of the picture and not of its patches: a flat patch beside a busy one is not complex for it.

    Args:
        lengths: [N, L, 36] code lengths of patches on a grid of (rows, columns).

    Returns: [N, 14] nats a vector and dimension, in the order of `NAMES`: of each scale of the code lengths, and in
        windows of all of them together.
    """
    local = local_rates(lengths, grid)
    deviation = local.var(dim=1, correction=0).clamp(min=0).sqrt()  # [N, 5]
    return torch.cat([local.mean(dim=1), deviation, picture_rates(lengths)], dim=1)


def picture_rates(lengths: Tensor) -> Tensor:
    """The rate of all patches of a picture, of each scale of their code lengths: [N, L, 36] -> [N, 4]."""
    n, length, _ = lengths.shape
    scales = lengths.view(n, length, len(SHRINKS), _SCALE).transpose(1, 2)  # [N, scales, L, F]
    apart = scales - scales.mean(dim=2, keepdim=True)
    return _rate(apart.mT @ apart / length, _SCALE)


def local_rates(lengths: Tensor, grid: tuple[int, int]) -> Tensor:
    """The rate in the window around each patch, of each scale and of all: [N, L, 36] -> [N, L, 5].

    Beyond the border the picture goes on as at the border.
    """
    n, length, width = lengths.shape
    plane = lengths.mT.reshape(n, width, *grid)
    around = F.pad(plane, (WINDOW // 2,) * 4, mode="replicate")
    count = WINDOW**2
    windows = F.unfold(around, WINDOW).view(n, len(SHRINKS), _SCALE, count, length)
    apart = (windows - windows.mean(dim=3, keepdim=True)).permute(0, 4, 1, 3, 2)  # [N, L, scales, M, F]
    # det(I + A'A) = det(I + AA'): there are fewer patches in a window than numbers of a patch. And of numbers that lie
    # side by side the products add up.
    grams = apart @ apart.mT / count  # [N, L, scales, M, M]
    scales = _rate(grams, _SCALE)
    together = _rate(grams.sum(dim=2), len(FEATURES))
    return torch.cat([scales, together.unsqueeze(2)], dim=2)


def _rate(covariances: Tensor, width: int) -> Tensor:
    """Of vectors of `width` numbers: [..., K, K] -> [...].

    ONNX has determinants, which overflow here, but no decomposition; so the elimination is written out. No pivot is
    below 1.
    """
    matrices = torch.eye(covariances.shape[-1], device=covariances.device) + covariances / DISTORTION
    matrices = matrices.movedim((-2, -1), (0, 1))  # [K, K, ...]: each number of all matrices lies together
    pivots = []
    while len(matrices):
        pivot, column = matrices[0, 0], matrices[1:, 0]
        pivots.append(pivot)
        matrices = matrices[1:, 1:] - column[:, None] * (column / pivot)[None]
    return torch.stack(pivots).clamp(min=1.0).log().sum(dim=0) / (2 * width)
