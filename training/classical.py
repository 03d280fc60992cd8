"""Classical measures of complexity, to compare a model with: no learning, no ratings, no weights.

Each takes the pixels that the model would see, made by the shared core, and is 0 for a picture of one
grey. What they say together comes in two forms: the mean of their z-scores, which no rating has
touched, and a ridge regression on ratings, judged by nested cross-validation as a readout is.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from clicv2.imaging import Pixels
from training.data.ratings import Floats, standardise_within
from training.ridge import Samples, cross_validated

JPEG_QUALITY = 75
# Of the full range of grey from one pixel to the next: below it is noise or soft shading.
EDGE = 0.06
# Resolutions of the gradient: the picture itself, half, a quarter, an eighth of it.
SHRINKS = (1, 2, 4, 8)
# Bits a channel that tell two colours apart; at 8 nearly every pixel of a photograph has one of its own.
COLOUR_BITS = 5
MEAN_Z = "mean_z"
RIDGE = "ridge"


def jpeg_size(pixels: Pixels) -> float:
    """Bytes a pixel of the JPEG (quality 75, colour at half the resolution) beyond those of a flat picture."""
    height, width, _ = pixels.shape
    return float((_jpeg_bytes(pixels) - _flat_jpeg_bytes(height, width)) / (height * width))


def _jpeg_bytes(pixels: Pixels) -> int:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    return buffer.tell()


@lru_cache(maxsize=8)
def _flat_jpeg_bytes(height: int, width: int) -> int:
    return _jpeg_bytes(np.full((height, width, 3), 128, dtype=np.uint8))


def grey_entropy(pixels: Pixels) -> float:
    """Shannon's entropy of the 256 grey levels, in bits: 0 to 8."""
    counts = np.bincount(np.rint(_luma(pixels)).astype(np.int64).ravel(), minlength=256)
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0  # no -0.0


def edge_density(pixels: Pixels) -> float:
    """Share of pixels where the grey changes by more than `EDGE` of its range from a pixel to the next (Sobel)."""
    grey = _luma(pixels) / 255.0
    # Sobel's filter sums to 8 times the change from one pixel to the next.
    slope = np.hypot(ndimage.sobel(grey, axis=0), ndimage.sobel(grey, axis=1)) / 8.0
    return float((slope > EDGE).mean())


def colourfulness(pixels: Pixels) -> float:
    """Spread and strength of the opponent colours (Hasler & Suesstrunk, Measuring colourfulness in natural
    images, SPIE 2003, their M3); about 15 is slightly, 45 is quite, 109 is extremely colourful.
    """  # the reference belongs to the sentence
    red, green, blue = np.moveaxis(pixels.astype(np.float64), 2, 0)
    red_green, yellow_blue = red - green, 0.5 * (red + green) - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    strength = np.hypot(red_green.mean(), yellow_blue.mean())
    return float(spread + 0.3 * strength)


def colours(pixels: Pixels) -> float:
    """Number of different colours at 5 bits a channel, in bits (log2): 0 to 15."""
    coarse = pixels.astype(np.int64) >> (8 - COLOUR_BITS)
    codes = (coarse[..., 0] << 2 * COLOUR_BITS) | (coarse[..., 1] << COLOUR_BITS) | coarse[..., 2]
    return float(np.log2(np.count_nonzero(np.bincount(codes.ravel()))))


def gradient_energy(pixels: Pixels) -> float:
    """Root-mean-square change of grey from a pixel to the next, averaged over four resolutions; 0 to about 1.4."""
    grey = _luma(pixels) / 255.0
    return float(np.mean([np.sqrt(_squared_slope(_shrink(grey, shrink)).mean()) for shrink in SHRINKS]))


def local_gradient_energy(pixels: Pixels, grid: tuple[int, int]) -> Floats:
    """Root-mean-square change of grey in each cell of a grid: a classical heatmap, [h, w].

    Args:
        grid: rows and columns, dividing the picture's height and width.
    """
    squared = _squared_slope(_luma(pixels) / 255.0)
    rows, columns = grid
    height, width = squared.shape
    cells = squared.reshape(rows, height // rows, columns, width // columns)
    return np.asarray(np.sqrt(cells.mean(axis=(1, 3))))


def _squared_slope(grey: Floats) -> Floats:
    """Squared change to the right and downwards, [H, W]; the last row and column change no further."""
    right = np.diff(grey, axis=1, append=grey[:, -1:])
    down = np.diff(grey, axis=0, append=grey[-1:])
    return np.asarray(right**2 + down**2)


def _shrink(grey: Floats, times: int) -> Floats:
    """Means of squares of times x times pixels; what does not fill one at the right and bottom is left out."""
    height, width = (max(1, side // times) for side in grey.shape)
    inside = grey[: height * times, : width * times]
    if inside.shape != (height * times, width * times):  # a picture smaller than one square
        return np.full((1, 1), grey.mean())
    return np.asarray(inside.reshape(height, times, width, times).mean(axis=(1, 3)))


def _luma(pixels: Pixels) -> Floats:
    """BT.601 grey of 0 to 255, [H, W]."""
    return np.asarray(pixels @ np.array([0.299, 0.587, 0.114]))


MEASURES: Mapping[str, Callable[[Pixels], float]] = {
    "jpeg_size": jpeg_size,
    "grey_entropy": grey_entropy,
    "edge_density": edge_density,
    "colourfulness": colourfulness,
    "colours": colours,
    "gradient_energy": gradient_energy,
}


def measure_all(pictures: Iterable[Pixels]) -> Floats:
    """All measures of pictures uint8 [H, W, 3]: [N, 6], columns as in `MEASURES`."""
    return np.array([[function(pixels) for function in MEASURES.values()] for pixels in pictures])


def mean_z(measured: Floats) -> Floats:
    """The mean over the measures of their z-scores over all N pictures: [N, F] -> [N]."""
    return np.asarray(_z(measured).mean(axis=1))


def ridge_on(measured: Floats, rated: Floats, groups: npt.NDArray[np.str_], seed: int = 0) -> Floats:
    """Predictions [N] of a ridge on the measures and their squares, none by weights that saw its picture.

    Args:
        measured: [N, F]; rated: [N] within groups of names [N].
    """
    z = _z(measured)
    design = np.concatenate([z, z**2 - (z**2).mean(axis=0)], axis=1)
    samples = Samples(design, standardise_within(rated, groups), groups, np.zeros_like(design), invariance=0.0)
    return cross_validated(samples, np.ones(design.shape[1]), seed)


def baselines(measured: Floats, rated: Floats, groups: npt.NDArray[np.str_], seed: int = 0) -> dict[str, Floats]:
    """What each measure and each of their combinations predicts: name -> [N]."""
    alone = dict(zip(MEASURES, measured.T, strict=True))
    return {**alone, MEAN_Z: mean_z(measured), RIDGE: ridge_on(measured, rated, groups, seed)}


def _z(measured: Floats) -> Floats:
    spread = measured.std(axis=0)
    return np.asarray((measured - measured.mean(axis=0)) / np.where(spread > 0, spread, 1.0))
