"""Does a heatmap find what is busy? Pictures are composed of flat and busy regions, so the truth is known.

A flat region is one colour or a soft gradient. A busy one is a piece of a real picture that is busy
throughout (by a classical measure, so that it has no flat cells itself) or, without pictures, a
generated texture. The heatmap's cells are compared with the truth by the area under the ROC curve:
the chance that a cell of a busy region is marked higher than one of a flat region, 0.5 for a guess.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import stats

from clicv2.contract import Figure, Float32
from clicv2.imaging import Pixels
from training.classical import local_gradient_energy
from training.data.ratings import Floats
from training.metrics import bootstrap_mean

PICTURES = 200
# Of a picture's cells, at least this share is wholly busy, and as many are wholly flat.
SMALLEST_SHARE = 0.2
# Of all pieces of the given pictures, the share that counts as busy; by how busy their calmer cells are.
BUSIEST_SHARE = 0.1
CALMER_CELLS = 0.2
# Pieces are judged in cells of about this side, in pixels.
CELL = 16
# Largest difference of a soft gradient's two colours, of 255: under a quarter of a step a pixel.
SOFTNESS = 40
# How often a generated texture covers its picture, if each thing were as large as the largest.
TEXTURE_LAYERS = 4

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Composition:
    """A composed picture.

    Attributes:
        pixels: uint8 [H, W, 3].
        busy: [H, W], the truth.
    """

    pixels: Pixels
    busy: Mask


@dataclass(frozen=True, slots=True)
class Localisation:
    """How well heatmaps find the busy regions.

    Attributes:
        auc: mean area under the ROC curve over the pictures.
        pictures: how many.
    """

    auc: Figure
    pictures: int


def compose(
    count: int, size: tuple[int, int], grid: tuple[int, int], *, pictures: Sequence[Pixels] = (), seed: int = 0
) -> tuple[Composition, ...]:
    """Compose pictures of flat and busy regions.

    Args:
        size: height and width.
        grid: rows and columns of the heatmaps to be judged, dividing the size.
        pictures: uint8 [H, W, 3] of that size, to take busy pieces from; none: generated textures.

    Raises ValueError when the grid is too coarse to hold a cell of each kind.
    """
    if min(grid) < 2:
        raise ValueError(f"a heatmap of {grid[0]} x {grid[1]} cells cannot tell regions apart")
    rng = np.random.default_rng(seed)
    pieces = busiest_pieces(pictures) if pictures else []
    composed = []
    for _ in range(count):
        busy = draw_regions(size, grid, rng)
        filling = _fill(pieces[rng.integers(len(pieces))], size, rng) if pieces else texture(size, rng)
        composed.append(Composition(np.where(busy[:, :, None], filling, flat(size, rng)), busy))
    return tuple(composed)


def localise(heatmaps: Sequence[Floats | Float32], composed: Sequence[Composition], seed: int = 0) -> Localisation:
    """Judge heatmaps, [h, w] each, of composed pictures."""
    areas = np.array([area_under_curve(heatmap, each.busy) for heatmap, each in zip(heatmaps, composed, strict=True)])
    return Localisation(bootstrap_mean(areas, seed=seed), len(composed))


def area_under_curve(heatmap: Floats | Float32, busy: Mask) -> float:
    """Of the cells [h, w] against the truth [H, W]; cells that a border crosses are both, and left out.

    Raises ValueError when all that remain are of one kind.
    """
    share = cell_shares(busy, (heatmap.shape[0], heatmap.shape[1]))
    high, low = heatmap[share == 1.0].astype(np.float64), heatmap[share == 0.0].astype(np.float64)
    if not len(high) or not len(low):
        raise ValueError("a picture needs whole cells of both kinds")
    # Mann and Whitney's U, ties counting half, is the area under the curve times the number of pairs.
    ranks = stats.rankdata(np.concatenate([high, low]))
    return float((ranks[: len(high)].sum() - len(high) * (len(high) + 1) / 2) / (len(high) * len(low)))


def cell_shares(busy: Mask, grid: tuple[int, int]) -> Floats:
    """Share of each cell that is busy: [H, W] -> [h, w]. Raises ValueError when the grid does not divide the mask."""
    rows, columns = grid
    height, width = busy.shape
    if height % rows or width % columns:
        raise ValueError(f"a heatmap of {rows} x {columns} cells does not divide a picture of {height} x {width}")
    cells = busy.reshape(rows, height // rows, columns, width // columns)
    return np.asarray(cells.mean(axis=(1, 3)))


def draw_regions(size: tuple[int, int], grid: tuple[int, int], rng: np.random.Generator) -> Mask:
    """Where a picture is busy: one to three discs, boxes or halves, or all but them: bool [H, W]."""
    while True:
        busy = np.zeros(size, dtype=np.bool_)
        for _ in range(rng.integers(1, 4)):
            busy |= _shape(size, rng)
        if rng.random() < 0.5:
            busy = ~busy
        shares = cell_shares(busy, grid)  # in whole cells, because only those are judged
        if min((shares == 1.0).mean(), (shares == 0.0).mean()) >= SMALLEST_SHARE:
            return busy


def _shape(size: tuple[int, int], rng: np.random.Generator) -> Mask:
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    cy, cx = rng.uniform(0.15, 0.85, 2) * (height, width)
    ry, rx = rng.uniform(0.15, 0.45, 2) * (height, width)
    kind = rng.integers(3)
    if kind == 0:
        return np.asarray(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1.0)
    if kind == 1:
        return np.asarray((abs(y - cy) <= ry) & (abs(x - cx) <= rx))
    angle = rng.uniform(0, 2 * np.pi)
    return np.asarray((y - cy) * np.sin(angle) + (x - cx) * np.cos(angle) > 0)


def flat(size: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """One colour, or a soft gradient from it to one nearby: uint8 [H, W, 3]."""
    height, width = size
    colour = rng.uniform(0, 255, 3)
    other = colour + (rng.uniform(-SOFTNESS, SOFTNESS, 3) if rng.random() < 0.5 else 0.0)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    along = (y - 0.5) * np.sin(angle) + (x - 0.5) * np.cos(angle)  # [H, W]
    along = (along - along.min()) / np.ptp(along)
    shaded = colour + along[:, :, None] * (other - colour)
    return np.asarray(np.rint(np.clip(shaded, 0, 255)), dtype=np.uint8)


def texture(size: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """Busy everywhere: small boxes, discs and lines in all colours, so many that they hide the ground."""
    height, width = size
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    largest = int(rng.integers(6, 14))  # pixels; a cell of 16 holds several
    for _ in range(TEXTURE_LAYERS * height * width // largest**2):
        x, y = rng.integers((-largest, -largest), (width, height)).tolist()
        wide, tall = rng.integers(2, largest + 1, 2).tolist()
        colour = tuple(rng.integers(0, 256, 3).tolist())
        box = (x, y, x + wide, y + tall)
        kind = rng.integers(3)
        if kind == 0:
            draw.rectangle(box, colour)
        elif kind == 1:
            draw.ellipse(box, colour)
        else:
            draw.line(box, colour, width=2)
    return np.array(image)


def busiest_pieces(pictures: Sequence[Pixels]) -> list[Pixels]:
    """The busiest tenth of the pictures' quarters, by the gradients in their calmer cells: uint8 [H/2, W/2, 3] each.

    A piece whose calmer cells are busy too is busy throughout.
    """
    pieces = [
        picture[top : top + picture.shape[0] // 2, left : left + picture.shape[1] // 2]
        for picture in pictures
        for top in (0, picture.shape[0] // 2)
        for left in (0, picture.shape[1] // 2)
    ]
    calm = [float(np.quantile(local_gradient_energy(piece, _cells(piece)), CALMER_CELLS)) for piece in pieces]
    kept = np.argsort(calm, kind="stable")[::-1][: max(1, round(BUSIEST_SHARE * len(pieces)))]
    return [pieces[i] for i in kept]


def _cells(piece: Pixels) -> tuple[int, int]:
    """Rows and columns of cells of about `CELL` pixels that divide a piece evenly."""
    rows, columns = (max(1, side // CELL) for side in piece.shape[:2])
    while piece.shape[0] % rows:
        rows -= 1
    while piece.shape[1] % columns:
        columns -= 1
    return rows, columns


def _fill(piece: Pixels, size: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """Cover a picture with a piece and its mirror images, so that no seam shows."""
    height, width = size
    tall, wide = piece.shape[:2]
    top, left = int(rng.integers(0, tall)), int(rng.integers(0, wide))
    covered = np.pad(piece, ((0, top + height), (0, left + width), (0, 0)), mode="symmetric")
    return covered[top : top + height, left : left + width]
