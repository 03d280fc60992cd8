"""Patch grid -> picture: the map alone or laid over the original. The same code for papers and for the API."""

from functools import lru_cache
from io import BytesIO

import cmap
import numpy as np
from PIL import Image

from clicv2.contract import Float32
from clicv2.imaging import Pixels

# Perceptually uniform: equal steps in complexity look like equal steps in colour, also in grey print.
DEFAULT_COLORMAP = "viridis"
COLORMAPS = ("viridis", "magma", "inferno", "plasma", "cividis")
DEFAULT_MAX_SIDE = 512
DEFAULT_OPACITY = 0.6


def render_map(
    grid: Float32, size: tuple[int, int], *, colormap: str = DEFAULT_COLORMAP, max_side: int = DEFAULT_MAX_SIDE
) -> Image.Image:
    """Colour a heatmap at a picture's aspect ratio.

    Args:
        grid: [h, w], values of 0 (simple) to 1 (complex); the scale is absolute, so that two
            pictures' maps can be compared, and not stretched to each map's own range.
        size: width and height of the picture, in pixels.
        colormap: one of `COLORMAPS`.
        max_side: longest side of the result, in pixels.

    Returns: an RGB image. Raises ValueError for a grid that is not 2-d or has NaN, or an unknown colour map.
    """
    if grid.ndim != 2 or grid.size == 0:
        raise ValueError(f"a heatmap is a 2-d grid, got the shape {grid.shape}")
    if np.isnan(grid).any():
        raise ValueError("the heatmap has cells that are not a number")
    levels = Image.fromarray(np.clip(grid, 0.0, 1.0).astype(np.float32))
    smooth = np.asarray(levels.resize(fit(size, max_side), Image.Resampling.BICUBIC))
    indices = np.rint(np.clip(smooth, 0.0, 1.0) * 255).astype(np.uint8)
    return Image.fromarray(_lookup_table(colormap)[indices])


def overlay(
    picture: Image.Image,
    grid: Float32,
    size: tuple[int, int],
    *,
    colormap: str = DEFAULT_COLORMAP,
    opacity: float = DEFAULT_OPACITY,
    max_side: int = DEFAULT_MAX_SIDE,
) -> Image.Image:
    """Lay a heatmap over its picture; `size` is the original's, see `render_map` for the rest.

    The picture is shown in grey beneath, so that its own colours cannot be taken for the map's.
    `opacity` is the map's: 0 shows the grey picture alone, 1 the map alone.
    """
    if not 0.0 <= opacity <= 1.0:
        raise ValueError(f"opacity must be between 0 and 1, got {opacity}")
    colours = render_map(grid, size, colormap=colormap, max_side=max_side)
    grey = picture.convert("L").resize(colours.size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return Image.blend(grey.convert("RGB"), colours, opacity)


def to_png(image: Image.Image) -> bytes:
    """Encode as PNG, quickly rather than tightly: a map compresses well at any level."""
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def fit(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Width and height with the aspect ratio of `size` and a longest side of `max_side`."""
    width, height = size
    scale = max_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


@lru_cache(maxsize=len(COLORMAPS))
def _lookup_table(name: str) -> Pixels:
    if name not in COLORMAPS:
        raise ValueError(f"unknown colour map {name!r}; there are {', '.join(COLORMAPS)}")
    table = cmap.Colormap(name).lut(256)[:, :3]  # [256, 3], 0 to 1
    return np.asarray(np.rint(table * 255), dtype=np.uint8)
