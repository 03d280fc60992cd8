"""Heatmaps in the forms that the API offers, one alone and the difference of two."""

from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Literal

import cmap
import numpy as np
from PIL import Image

from clicv2 import contract
from clicv2.contract import Float32
from clicv2.heatmap import fit, overlay, render_map, to_png
from clicv2.imaging import Pixels
from service.decoding import Known
from service.schemas import CompareQuery, DifferenceGrid, DifferenceRendering, Grid, Options, Rendering

PictureForm = Literal["png", "webp"]
MEDIA_TYPES: dict[PictureForm, str] = {"png": "image/png", "webp": "image/webp"}

# Blue, white, red, of equal lightness at equal distance from the middle; also for who cannot tell red from green.
_DIVERGING = "crameri:vik"


@dataclass(frozen=True, slots=True)
class Rendered:
    """An encoded picture and its size in pixels."""

    data: bytes
    width: int
    height: int
    form: PictureForm

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.form]


def grid(heatmap: Float32) -> Grid:
    """Cells as numbers on the score's scale; four decimals, for the model knows no more."""
    cells = np.round(contract.local_score(heatmap).astype(np.float64), 4)
    return Grid(rows=cells.shape[0], columns=cells.shape[1], values=cells.tolist())


def picture(heatmap: Float32, decoded: Known, options: Options, form: PictureForm = "png") -> Rendered:
    """The map, or, for `overlay`, the map over the picture. CPU-bound: call it off the event loop."""
    cells = contract.local_score(heatmap)
    if options.heatmap == "overlay" and decoded.preview is not None:
        image = overlay(
            decoded.preview,
            cells,
            decoded.size,
            colormap=options.colormap,
            opacity=options.opacity,
            max_side=options.heatmap_size,
        )
    else:
        image = render_map(cells, decoded.size, colormap=options.colormap, max_side=options.heatmap_size)
    return _encode(image, form)


def as_json(rendered: Rendered, options: Options) -> Rendering:
    return Rendering(
        kind="overlay" if options.heatmap == "overlay" else "png",
        width=rendered.width,
        height=rendered.height,
        data=b64encode(rendered.data).decode("ascii"),
    )


def difference(first: Float32, second: Float32) -> Float32:
    """The second heatmap minus the first, logits [h, w] both, on the score's scale: -1 to 1."""
    return contract.local_score(second) - contract.local_score(first)


def difference_grid(cells: Float32) -> DifferenceGrid:
    rounded = np.round(cells.astype(np.float64), 4) + 0.0  # no -0.0
    return DifferenceGrid(rows=rounded.shape[0], columns=rounded.shape[1], values=rounded.tolist())


def difference_picture(
    cells: Float32, size: tuple[int, int], query: CompareQuery, form: PictureForm = "png"
) -> Rendered:
    """Blue below zero, red above, at the shape of a picture of `size`. CPU-bound: call it off the event loop."""
    levels = Image.fromarray(cells.astype(np.float32))
    smooth = np.asarray(levels.resize(fit(size, query.heatmap_size), Image.Resampling.BICUBIC))
    indices = np.rint((np.clip(smooth / query.scale, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
    return _encode(Image.fromarray(_diverging_table()[indices]), form)


def difference_as_json(rendered: Rendered, query: CompareQuery) -> DifferenceRendering:
    return DifferenceRendering(
        width=rendered.width,
        height=rendered.height,
        scale=query.scale,
        data=b64encode(rendered.data).decode("ascii"),
    )


def _encode(image: Image.Image, form: PictureForm) -> Rendered:
    if form == "png":
        return Rendered(to_png(image), image.width, image.height, form)
    buffer = BytesIO()
    # Not exact, as PNG is: a tenth of its size, in half its time. A colour is off by 1.6 of 255 in the mean.
    image.save(buffer, "WEBP", quality=90, method=0)
    return Rendered(buffer.getvalue(), image.width, image.height, form)


@cache
def _diverging_table() -> Pixels:
    table = cmap.Colormap(_DIVERGING).lut(256)[:, :3]  # [256, 3], 0 to 1
    return np.asarray(np.rint(table * 255), dtype=np.uint8)
