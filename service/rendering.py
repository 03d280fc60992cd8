"""A prediction's heatmap in the forms that the API offers."""

from base64 import b64encode
from dataclasses import dataclass

import numpy as np

from clicv2 import contract
from clicv2.contract import Float32
from clicv2.heatmap import overlay, render_map, to_png
from service.decoding import Decoded
from service.schemas import ComplexityQuery, Grid, Rendering


@dataclass(frozen=True, slots=True)
class Png:
    """An encoded picture and its size in pixels."""

    data: bytes
    width: int
    height: int


def grid(heatmap: Float32) -> Grid:
    """Cells as numbers on the score's scale; four decimals, for the model knows no more."""
    cells = np.round(contract.local_score(heatmap).astype(np.float64), 4)
    return Grid(rows=cells.shape[0], columns=cells.shape[1], values=cells.tolist())


def png(heatmap: Float32, decoded: Decoded, query: ComplexityQuery) -> Png:
    """The map, or, for `overlay`, the map over the picture. CPU-bound: call it off the event loop."""
    cells = contract.local_score(heatmap)
    if query.heatmap == "overlay" and decoded.preview is not None:
        image = overlay(
            decoded.preview,
            cells,
            decoded.size,
            colormap=query.colormap,
            opacity=query.opacity,
            max_side=query.heatmap_size,
        )
    else:
        image = render_map(cells, decoded.size, colormap=query.colormap, max_side=query.heatmap_size)
    return Png(to_png(image), image.width, image.height)


def as_json(png: Png, query: ComplexityQuery) -> Rendering:
    return Rendering(
        kind="overlay" if query.heatmap == "overlay" else "png",
        width=png.width,
        height=png.height,
        data=b64encode(png.data).decode("ascii"),
    )
