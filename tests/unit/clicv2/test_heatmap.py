"""Maps are true in place, scale and shape."""

from io import BytesIO

import numpy as np
import pictures as p
import pytest
from PIL import Image

from clicv2 import heatmap
from clicv2.heatmap import COLORMAPS, fit, overlay, render_map, to_png

LEFT = np.tile(np.linspace(1, 0, 12, dtype=np.float32), (12, 1))  # hot at the left
PICTURE = Image.fromarray(p.scene(60, 40))


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB colours of 0 to 255."""
    c = rgb / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


@pytest.mark.parametrize("name", COLORMAPS)
def test_colour_maps_are_perceptually_uniform(name: str) -> None:
    """Lightness rises all the way and at an even pace."""
    steps = np.diff(lightness(heatmap._lookup_table(name).astype(float))[::15])
    assert (steps > 0).all()
    assert steps.max() < 2 * steps.mean()


def test_one_colour_map_is_viridis() -> None:
    table = heatmap._lookup_table("viridis")
    assert table[[0, 255]].tolist() == [[68, 1, 84], [253, 231, 37]]


@pytest.mark.parametrize(
    ("grid", "side"),
    [
        (LEFT, np.s_[:, 0]),
        (LEFT[:, ::-1], np.s_[:, -1]),
        (LEFT.T, np.s_[0, :]),
        (LEFT.T[::-1], np.s_[-1, :]),
    ],
    ids=["left", "right", "top", "bottom"],
)
def test_a_map_is_bright_where_the_grid_is_hot(grid: np.ndarray, side: tuple[slice, int]) -> None:
    light = lightness(np.asarray(render_map(grid, (300, 200))).astype(float))
    assert light[side].mean() > light.mean() + 20
    assert light[side].min() == pytest.approx(light.max(), abs=3)


@pytest.mark.parametrize("value", [0.0, 0.25, 0.5, 1.0])
def test_the_scale_is_absolute(value: float) -> None:
    image = render_map(np.full((3, 3), value, np.float32), (10, 10), colormap="magma")
    assert np.unique(np.asarray(image).reshape(-1, 3), axis=0).tolist() == [
        heatmap._lookup_table("magma")[round(value * 255)].tolist()
    ]


def test_values_beyond_the_scale_are_at_its_ends() -> None:
    beyond = np.array([[-5.0, 5.0], [-np.inf, np.inf]], np.float32)
    within = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)
    assert np.array_equal(np.asarray(render_map(beyond, (9, 9))), np.asarray(render_map(within, (9, 9))))


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((4000, 3000), (512, 384)),
        ((3000, 4000), (384, 512)),
        ((16, 16), (512, 512)),
        ((16384, 1), (512, 1)),
        ((1, 16384), (1, 512)),
    ],
)
def test_maps_have_the_pictures_aspect_ratio(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert fit(size, 512) == fitted
    assert render_map(LEFT, size).size == fitted
    # The decoder may have yielded the picture smaller than it is.
    assert overlay(Image.new("RGB", (max(1, size[0] // 8), max(1, size[1] // 8))), LEFT, size).size == fitted


def test_an_overlay_of_no_opacity_is_the_grey_picture() -> None:
    result = np.asarray(overlay(PICTURE, LEFT, (60, 40), opacity=0.0, max_side=60)).astype(int)
    grey = np.asarray(PICTURE.convert("L")).astype(int)
    assert np.array_equal(result, np.repeat(grey[..., None], 3, axis=2))


def test_an_overlay_of_full_opacity_is_the_map() -> None:
    result = overlay(PICTURE, LEFT, (60, 40), opacity=1.0)
    assert np.array_equal(np.asarray(result), np.asarray(render_map(LEFT, (60, 40))))


def test_an_overlay_is_in_between() -> None:
    ends = [np.asarray(overlay(PICTURE, LEFT, (60, 40), opacity=o)).astype(float) for o in (0.0, 0.25, 1.0)]
    assert np.abs(ends[1] - (0.75 * ends[0] + 0.25 * ends[2])).max() <= 1


@pytest.mark.parametrize("opacity", [-0.1, 1.1, float("nan")])
def test_opacity_has_bounds(opacity: float) -> None:
    with pytest.raises(ValueError, match="opacity"):
        overlay(PICTURE, LEFT, (60, 40), opacity=opacity)


@pytest.mark.parametrize(
    ("grid", "colormap", "message"),
    [
        (np.zeros(4, np.float32), "viridis", "2-d"),
        (np.zeros((0, 4), np.float32), "viridis", "2-d"),
        (np.zeros((1, 2, 3), np.float32), "viridis", "2-d"),
        (np.array([[0.0, np.nan]], np.float32), "viridis", "not a number"),
        (LEFT, "jet", "viridis"),
    ],
)
def test_what_is_no_heatmap_is_refused(grid: np.ndarray, colormap: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_map(grid, (10, 10), colormap=colormap)


def test_png_is_the_same_picture() -> None:
    image = render_map(LEFT, (300, 200))
    with Image.open(BytesIO(to_png(image))) as read:
        assert read.format == "PNG"
        assert np.array_equal(np.asarray(read), np.asarray(image))
