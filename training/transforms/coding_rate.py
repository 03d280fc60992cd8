"""How much the patches of a picture differ, as information: what it would cost to tell them apart.

The coding rate of a set of vectors (Ma et al., Segmentation of multivariate mixed data via lossy coding and
compression, PAMI 2007; maximal coding rate reduction, arXiv 2006.08558) is the number of nats a vector that a Gaussian
code needs, up to a given distortion: 1/2 log det(I + covariance / distortion). Here the vectors are the code lengths
of patches. Each says how busy its patch is; their coding rate says how many kinds of busy there are, and is 0 for the
densest texture if it is the same everywhere. That is what entropies, code lengths and junctions, which are averages
over patches, leave out.
"""

import itertools

import torch
from torch import Tensor

from training.transforms.around import extend
from training.transforms.code_length import BANDS, CHANNELS, FEATURES, SHRINKS

# Of bits a coefficient, squared. From .001 to .01 the measure agrees with people equally well (to .002).
DISTORTION = 0.003
# Side of the neighbourhood of a patch, in patches.
WINDOW = 3
# From one window to the next where a picture has all of them summed up: they overlap, and from window to window
# changes less than from patch to patch. Of every patch, each rate of a picture would differ by .01 or less (a standard
# deviation on the dev half of SAVOIAS), label-free PCC by .0002, and the model would take a twentieth longer.
WINDOW_STEP = 2
# Scales of the code lengths, the finest first, whose blocks are no larger than a patch.
PATCH_SCALES = 2
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
    local, whole = local_and_whole(lengths, grid)
    deviation = local.var(dim=1, correction=0).clamp(min=0).sqrt()  # [N, 5]
    return torch.cat([local.mean(dim=1), deviation, whole], dim=1)


def local_and_whole(lengths: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The rates in the windows around every second patch of every second row, of each scale and of all, and of all
    patches of the picture, of each scale: [N, L, 36] -> [N, windows, 5], [N, 4].

    Beyond the border the picture goes on as at the border.
    """
    grams = _window_grams(lengths, grid, WINDOW_STEP)
    # Of numbers that lie side by side the products add up.
    grams = torch.cat([grams, grams.sum(dim=2, keepdim=True)], dim=2)  # [N, windows, scales + 1, M, M]
    # A window has as many patches as a scale has numbers, so that one elimination does for both.
    nats = _rate(torch.cat([grams.flatten(1, 2), _covariances(lengths)], dim=1))  # [N, 5 windows + 4]
    numbers = torch.tensor([*(_SCALE for _ in SHRINKS), len(FEATURES)], device=nats.device)
    local, whole = nats[:, : -len(SHRINKS)].view(grams.shape[:3]), nats[:, -len(SHRINKS) :]
    return local / numbers, whole / _SCALE


def patch_rates(lengths: Tensor, grid: tuple[int, int]) -> Tensor:
    """The rate in the window around each patch, of the scales whose blocks are no larger than it: [N, L, 36] ->
    [N, L, 2].

    A block of the other scales covers several patches, which it makes alike.
    """
    return _rate(_window_grams(lengths[:, :, : PATCH_SCALES * _SCALE], grid, 1)) / _SCALE


def _covariances(lengths: Tensor) -> Tensor:
    """Of all patches of a picture, of each scale: [N, L, 36] -> [N, 4, 9, 9]."""
    n, length, _ = lengths.shape
    scales = lengths.view(n, length, len(SHRINKS), _SCALE).transpose(1, 2)  # [N, scales, L, F]
    apart = scales - scales.mean(dim=2, keepdim=True)
    return apart.mT @ apart / length


def _window_grams(lengths: Tensor, grid: tuple[int, int], step: int) -> Tensor:
    """Products of the patches in each window, of each scale: [N, L, F] -> [N, windows, scales, M, M].

    Of what they differ by from the window's mean, over their number M. Each window is `step` patches from the next.
    """
    n, _, width = lengths.shape
    rows, columns = grid
    around = extend(lengths.view(n, rows, columns, width))
    shape = (n, -1, width // _SCALE, 1, _SCALE)
    offsets = itertools.product(range(WINDOW), repeat=2)
    patches = [around[:, i : i + rows : step, j : j + columns : step].reshape(shape) for i, j in offsets]
    mean = sum(patches[1:], patches[0]) / len(patches)
    apart = torch.cat([each - mean for each in patches], dim=3)  # [N, windows, scales, M, F]
    # det(I + A'A) = det(I + AA'): there are fewer patches in a window than numbers of a patch.
    return apart @ apart.mT / len(patches)


def _rate(covariances: Tensor) -> Tensor:
    """Nats a vector: [..., K, K] -> [...].

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
    return torch.stack(pivots).clamp(min=1.0).log().sum(dim=0) / 2
