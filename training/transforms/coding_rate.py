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
NAMES = (*_LOCAL, *(f"deviation of {name}" for name in _LOCAL), *(f"{scale}@whole" for scale in _SCALES))


def coding_rates(lengths: Tensor, grid: tuple[int, int]) -> Tensor:
    """How much each patch's neighbourhood differs in itself, how unequal that is over the picture, and the whole.

    Args:
        lengths: [N, L, 36] code lengths of patches on a grid of (rows, columns).

    Returns: [N, L, 14] nats a vector and dimension, in the order of `NAMES`: of each scale of the code lengths, and in
        windows of all of them together; what is said of the whole picture is the same for all its patches.
    """
    local = local_rates(lengths, grid)
    deviation = local.var(dim=1, correction=0, keepdim=True).clamp(min=0).sqrt()  # [N, 1, 5]
    whole = torch.cat([deviation, picture_rates(lengths).unsqueeze(1)], dim=2)
    return torch.cat([local, whole.expand(-1, local.shape[1], -1)], dim=2)


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
    pivots = []
    for _ in range(matrices.shape[-1]):
        pivot, column = matrices[..., :1, :1], matrices[..., 1:, :1]
        pivots.append(pivot[..., 0, 0])
        matrices = matrices[..., 1:, 1:] - column * column.mT / pivot
    return torch.stack(pivots, dim=-1).clamp(min=1.0).log().sum(dim=-1) / (2 * width)
