"""Draw the picture of the method, method.svg: `python docs/method.py` from the project's root."""

from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from pictures import street
from PIL import Image

DOCS = Path(__file__).parent
PATCH, VIEW = 32, 256  # in pixels of the drawn picture: 8 x 8 patches
FIRST, SHIFT = (96, 168), (48, 40)  # upper left corner of the first view, and how far the second is from it
ASKED = (4, 3)  # column and row of the patch that the picture follows
MASKED = 0.35
BLUE, ORANGE, GREEN, INK, GREY = "#0b6fa4", "#c8500a", "#237a3b", "#1f2328", "#8b949e"
Pixels = npt.NDArray[np.uint8]


def information(view: Pixels) -> npt.NDArray[np.float64]:
    """Entropy of each patch's grey histogram, as share of the greatest: [h, w]."""
    grey = view.mean(axis=2)
    side = VIEW // PATCH
    blocks = grey.reshape(side, PATCH, side, PATCH).swapaxes(1, 2).reshape(side, side, -1)  # [h, w, P * P]
    counts = np.apply_along_axis(lambda patch: np.histogram(patch, 32, (0, 256))[0], 2, blocks) / PATCH**2
    bits = -(counts * np.log2(counts, out=np.zeros_like(counts), where=counts > 0)).sum(axis=2)
    shares: npt.NDArray[np.float64] = bits / 5.0
    return shares


def main() -> None:
    picture: Pixels = np.asarray(Image.open(BytesIO(street())).convert("RGB"))
    second = (FIRST[0] + SHIFT[0], FIRST[1] + SHIFT[1])
    views = [picture[y : y + VIEW, x : x + VIEW] for x, y in (FIRST, second)]
    rng = np.random.default_rng(3)
    masks = [rng.random((VIEW // PATCH, VIEW // PATCH)) < MASKED for _ in views]
    for mask in masks:
        mask[ASKED[1], ASKED[0]] = False
    masks[0][1, 2] = True
    with mpl.rc_context({"font.family": "DejaVu Sans", "svg.hashsalt": "clicv2", "svg.fonttype": "path"}):
        figure = Figure(figsize=(10, 5.17), facecolor="white")
        whole = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        whole.set(xlim=(0, 120), ylim=(0, 62))
        whole.set_axis_off()
        _picture(figure, whole, picture, second)
        for view, mask, y, colour, name in zip(
            views, masks, (33.5, 4.5), (BLUE, ORANGE), ("first view", "second view"), strict=True
        ):
            _view(figure, whole, view, mask, y, colour, name)
            _arrow(whole, (66.5, y + 11.5), (73.5, 35 if y > 20 else 27))
        _box(whole, (74, 23), (10, 16), "encoder", INK)
        _arrow(whole, (84.5, 35), (89.5, 44))
        _arrow(whole, (84.5, 27), (89.5, 18))
        _contrast(figure, whole, views)
        _masked(figure, whole, views[0])
        figure.savefig(DOCS / "method.svg", metadata={"Date": None, "Title": "How CLICv2 learns complexity"})


def _picture(figure: Figure, whole: Axes, picture: Pixels, second: tuple[int, int]) -> None:
    axes = _inset(figure, (2, 19), (32, 24))
    axes.imshow(picture)
    for (x, y), colour in ((FIRST, BLUE), (second, ORANGE)):
        axes.add_patch(Rectangle((x, y), VIEW, VIEW, fill=False, edgecolor=colour, linewidth=2.5))
    whole.text(18, 45, "a picture, no label", ha="center", fontsize=13, color=INK, weight="bold")
    whole.text(
        18, 15.2, "two views, the second moved by\none to two patches", ha="center", va="center", fontsize=11, color=INK
    )
    _arrow(whole, (35, 34), (41.5, 43))
    _arrow(whole, (35, 28), (41.5, 18))


def _view(
    figure: Figure, whole: Axes, view: Pixels, mask: npt.NDArray[np.bool_], y: float, colour: str, name: str
) -> None:
    axes = _inset(figure, (42.5, y), (23, 23))
    axes.imshow(view)
    for row, column in np.argwhere(mask):
        axes.add_patch(Rectangle((column * PATCH, row * PATCH), PATCH, PATCH, facecolor="#d0d7de", edgecolor="none"))
    for line in range(0, VIEW + 1, PATCH):
        axes.axhline(line, color="white", linewidth=0.7)
        axes.axvline(line, color="white", linewidth=0.7)
    axes.add_patch(
        Rectangle((ASKED[0] * PATCH, ASKED[1] * PATCH), PATCH, PATCH, fill=False, edgecolor=colour, linewidth=3.5)
    )
    axes.set(xlim=(0, VIEW), ylim=(VIEW, 0))
    whole.text(54, y + 24, f"{name}, grey patches removed", ha="center", fontsize=11, color=colour, weight="bold")


def _contrast(figure: Figure, whole: Axes, views: list[Pixels]) -> None:
    x, y = ASKED[0] * PATCH, ASKED[1] * PATCH
    for view, left, colour in zip(views, (91, 102), (BLUE, ORANGE), strict=True):
        axes = _inset(figure, (left, 43), (7, 7))
        axes.imshow(view[y : y + PATCH, x : x + PATCH])
        axes.add_patch(Rectangle((-0.5, -0.5), PATCH, PATCH, fill=False, edgecolor=colour, linewidth=5))
    whole.annotate("", (102, 46.5), (98, 46.5), arrowprops={"arrowstyle": "<->", "color": GREEN, "lw": 2.5})
    whole.text(90.5, 55, "patch-wise contrast", fontsize=13, color=INK, weight="bold")
    whole.text(
        90.5, 52, "same position: other content,\nabout the same complexity", fontsize=10.5, color=INK, va="center"
    )
    whole.text(90.5, 38.7, "pull these together, push all\nother patches away", fontsize=10.5, color=GREEN, va="center")


def _masked(figure: Figure, whole: Axes, view: Pixels) -> None:
    axes = _inset(figure, (91, 8.5), (13, 13))
    axes.imshow(information(view), cmap="viridis", vmin=0, vmax=1)
    whole.text(90.5, 29, "masked modelling", fontsize=13, color=INK, weight="bold")
    whole.text(90.5, 25.8, "how much information did the\nremoved patches hold?", fontsize=10.5, color=INK, va="center")
    whole.text(90.5, 5.2, "77 computed measures each,\nof which this is one", fontsize=10.5, color=GREEN, va="center")


def _inset(figure: Figure, corner: tuple[float, float], size: tuple[float, float]) -> Axes:
    """Axes for pixels, at a place in the units of the whole drawing."""
    axes = figure.add_axes((corner[0] / 120, corner[1] / 62, size[0] / 120, size[1] / 62))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def _box(whole: Axes, corner: tuple[float, float], size: tuple[float, float], text: str, colour: str) -> None:
    whole.add_patch(
        FancyBboxPatch(corner, *size, boxstyle="round,pad=0,rounding_size=1.5", facecolor="#eef2f6", edgecolor=colour)
    )
    whole.text(corner[0] + size[0] / 2, corner[1] + size[1] / 2, text, ha="center", va="center", fontsize=12, color=INK)


def _arrow(whole: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    whole.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=GREY, linewidth=1.6))


if __name__ == "__main__":
    main()
