"""How many bits a transform coder would spend on each patch: a classical, label-free measure of complexity.

As in JPEG, 8 x 8 blocks of luma and chroma are transformed (orthonormal DCT-II) and each
coefficient c is taken to cost log2(1 + |c| / STEP) bits. Three bands of frequency are kept apart,
and four scales, for fine texture and coarse layout count differently with people. Everything is
continuous in the pixels, so that ONNX and torch agree to rounding.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from training.transforms.augment import LUMA

BLOCK = 8
# Coefficients whose costs are added by one logarithm, that of their product: with one for each, code lengths take a
# seventh longer. None is larger than 200 steps, so that the products stay within 32 bits.
GROUP = 8
# Of pixels in [0, 1]: a quantiser about as fine as JPEG's at quality 95.
STEP = 0.02
# Bounds of u + v for the low, middle and high frequencies; the mean (u = v = 0) costs nothing.
BANDS = ((1, 2), (3, 5), (6, 14))
# Resolutions: the image itself, a half, a quarter and an eighth of it.
SHRINKS = (1, 2, 4, 8)
CHANNELS = ("luma", "blue", "red")
FEATURES = tuple(f"{channel}{low}-{high}/{shrink}" for shrink in SHRINKS for channel in CHANNELS for low, high in BANDS)
# BT.601: (B - Y) and (R - Y) to the range [-1/2, 1/2].
_CB, _CR = 0.564, 0.713


def code_lengths(images: Tensor, patch: int) -> Tensor:
    """Bits a coefficient in each patch, by scale, channel and band.

    Args:
        images: RGB [N, 3, H, W] in [0, 1].
        patch: side of a patch in pixels, a multiple of 8 that divides H and W.

    Returns: [N, L, 36] in the order of `FEATURES`. A block larger than its patches counts for each of them; one
        that reaches over the border continues with the pixels at the border.
    """
    height, width = images.shape[2:]
    grid = (height // patch, width // patch)
    channels = (_COLOURS.to(images) @ images.flatten(2)).view(images.shape)  # [N, 3, H, W]
    scales = []
    for shrink in SHRINKS:
        if shrink > 1:
            # Each is half of the one before. With ONNX Runtime's pooling it takes two and a half times as long.
            channels = F.conv2d(channels, _HALF.to(images), stride=2, groups=len(CHANNELS))
        bits = _block_bits(channels)  # [N, 9, H / 8 shrink, W / 8 shrink]
        covered = BLOCK * shrink  # pixels of the image to a side of a block
        if covered < patch:
            scales.append(F.avg_pool2d(bits, patch // covered))
        else:
            scales.append(_repeat(bits, covered // patch)[:, :, : grid[0], : grid[1]])
    return torch.cat(scales, dim=1).flatten(2).transpose(1, 2)


def _block_bits(channels: Tensor) -> Tensor:
    """Mean bits of each band of each block, the last ones rounded up: [N, 3, h, w] -> [N, 9, h / 8, w / 8]."""
    n, count, height, width = channels.shape
    if height % BLOCK or width % BLOCK:
        channels = F.pad(channels, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    rows, columns = channels.shape[2] // BLOCK, channels.shape[3] // BLOCK
    flat = channels.reshape(n * count, 1, rows * BLOCK, columns * BLOCK)
    steps = F.conv2d(flat, _BASIS.to(channels), stride=BLOCK)  # [3 N, groups x GROUP, rows, columns]
    levels = (1.0 + steps.abs()).view(n * count, -1, GROUP, rows, columns).prod(dim=2)  # [3 N, groups, rows, columns]
    bands = F.conv2d(levels.log(), _BAND_MEANS.to(levels))  # [3 N, 3, rows, columns]
    return bands.reshape(n, count * len(BANDS), rows, columns)


def _colours() -> Tensor:
    """RGB -> luma and chroma, [3, 3]."""
    red, _, blue = torch.eye(3)
    grey = torch.tensor(LUMA)
    return torch.stack([grey, (blue - grey) * _CB, (red - grey) * _CR])


def _basis() -> tuple[Tensor, Tensor]:
    """The orthonormal DCT-II in steps, and from the logarithms of what it gives to the mean bits of each band.

    The coefficients of a band lie together, in groups of which the last one is filled up with nothing, which costs
    nothing: filters [groups x GROUP, 1, 8, 8] and [3, groups, 1, 1].
    """
    k = torch.arange(BLOCK, dtype=torch.float64)
    cosines = torch.cos((2 * k[None, :] + 1) * k[:, None] * math.pi / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    cosines[0] /= math.sqrt(2)
    coefficients = torch.einsum("ui,vj->uvij", cosines, cosines) / STEP
    frequency = k[:, None] + k
    filters, means = [], []
    for number, (low, high) in enumerate(BANDS):
        band = coefficients[(frequency >= low) & (frequency <= high)]  # [coefficients of the band, 8, 8]
        nothing = torch.zeros(-len(band) % GROUP, BLOCK, BLOCK)
        share = torch.zeros(len(BANDS), (len(band) + len(nothing)) // GROUP)
        share[number] = 1 / (math.log(2) * len(band))
        filters += [band, nothing]
        means.append(share)
    return torch.cat(filters)[:, None].float(), torch.cat(means, dim=1)[:, :, None, None]


# Made once: in an exported graph, all that asks for code lengths then asks for the same ones, which are computed once.
_COLOURS = _colours()
_BASIS, _BAND_MEANS = _basis()
_HALF = torch.full((len(CHANNELS), 1, 2, 2), 1 / 4)


def _repeat(cells: Tensor, times: int) -> Tensor:
    return cells.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)
