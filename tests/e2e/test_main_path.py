"""The main path, whole and real: pictures -> pretraining -> readout -> model repository -> POST /v1/complexity.

Everything runs as a user would run it: the console scripts in processes of their own, the server
on a real port. The model is small and trained for less than a minute, on pictures made here.
"""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image, ImageDraw
from serving import Server, serving

SIDE = 96
TRAIN = (sys.executable, "-m", "training.cli")


def clutter(shapes: int, seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """A plain ground with that many shapes on it: the more shapes, the more complex."""
    rng = np.random.default_rng(seed)
    colour = [tuple(int(c) for c in rng.integers(0, 256, 3)) for _ in range(shapes + 1)]
    image = Image.new("RGB", (width, height), colour[0])
    draw = ImageDraw.Draw(image)
    for fill in colour[1:]:
        x, y = int(rng.integers(-8, width)), int(rng.integers(-8, height))
        w, h = (int(s) for s in rng.integers(4, 28, 2))
        kind = rng.integers(3)
        if kind == 0:
            draw.rectangle((x, y, x + w, y + h), fill)
        elif kind == 1:
            draw.ellipse((x, y, x + w, y + h), fill)
        else:
            draw.line((x, y, x + 2 * w, y + h), fill, 2)
    return image


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def train(*arguments: object) -> None:
    subprocess.run([*TRAIN, *map(str, arguments)], check=True, timeout=240)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with a model that was trained on the spot."""
    folder = tmp_path_factory.mktemp("main-path")
    images = folder / "images"
    images.mkdir()
    rows = ["path,score,group"]
    for number in range(240):
        shapes = int(1.5 ** (number % 12))
        clutter(shapes, seed=number).save(images / f"{number}.png")
        rows.append(f"{number}.png,{100 * (number % 12) / 11:.1f},{'ab'[number % 2]}")
    (folder / "ratings.csv").write_text("\n".join(rows) + "\n")
    recipe = {
        "name": "minute",
        "images": [str(images)],
        "canvas": SIDE,
        "workers": 0,
        "input_size": SIDE,
        "encoder": {"dim": 48, "depth": 2, "heads": 2, "stem": [8, 16, 32]},
        "clicv2": {"view_size": 64, "shift_low": 8, "shift_high": 24},
        "optim": {"epochs": 8, "batch_size": 24, "lr": 0.002},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    rated = ("--images", images, "--ratings", folder / "ratings.csv")
    train("pretrain", folder / "recipe.yaml", "--out", folder / "run")
    train("fit", folder / "run", *rated)
    train("export", folder / "run", folder / "repository/clicv2/1", "--reference", images, *rated)
    return folder / "repository"


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    with serving(repository, max_batch_size=8) as running:
        yield running


def score(server: Server, image: Image.Image, **parameters: object) -> dict[str, object]:
    response = server.score(png(image), **parameters)
    assert response.status_code == 200, response.text
    answer: dict[str, object] = response.json()
    return answer


def grid(answer: dict[str, object]) -> npt.NDArray[np.float64]:
    heatmap = answer["heatmap"]
    assert isinstance(heatmap, dict)
    return np.array(heatmap["values"])


def test_a_flat_picture_scores_below_a_busy_one(server: Server) -> None:
    flat = score(server, Image.new("RGB", (320, 200), (90, 140, 60)))
    some = score(server, clutter(6, seed=1000, width=320, height=200))
    busy = score(server, clutter(200, seed=1001, width=320, height=200))
    assert 0 <= flat["score"] < some["score"] < busy["score"] <= 1
    assert flat["percentile"] < busy["percentile"]
    assert flat["entropy"] < busy["entropy"]  # the label-free output agrees


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_the_heatmap_is_higher_where_the_picture_is_busy(server: Server, side: str) -> None:
    picture = Image.new("RGB", (192, 192), (200, 190, 170))
    busy = clutter(120, seed=7, width=192, height=192)
    box = {"left": (0, 0, 96, 192), "right": (96, 0, 192, 192), "top": (0, 0, 192, 96), "bottom": (0, 96, 192, 192)}
    picture.paste(busy.crop(box[side]), box[side])
    cells = grid(score(server, picture, heatmap="grid"))
    rows, columns = cells.shape
    halves = {
        "left": cells[:, : columns // 2],
        "right": cells[:, columns // 2 :],
        "top": cells[: rows // 2],
        "bottom": cells[rows // 2 :],
    }
    opposite = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    assert halves[side].mean() > halves[opposite[side]].mean() + 0.05


def test_the_heatmap_explains_the_score(server: Server) -> None:
    answer = score(server, clutter(20, seed=3), heatmap="grid")
    cells = grid(answer)
    assert np.mean(np.log(cells / (1 - cells))) == pytest.approx(
        np.log(answer["score"] / (1 - answer["score"])), abs=1e-3
    )


def test_a_batch_gives_what_single_calls_give(server: Server) -> None:
    pictures = [clutter(shapes, seed=2000 + shapes) for shapes in range(0, 64, 2)]
    singles = [score(server, picture)["score"] for picture in pictures]
    with ThreadPoolExecutor(len(pictures)) as pool:
        together = list(pool.map(lambda picture: score(server, picture)["score"], pictures))
    assert server.metric("clicv2_batch_size_sum") > server.metric("clicv2_batch_size_count")  # some were batched
    assert np.abs(np.array(singles) - np.array(together)).max() <= 1e-4


def test_the_answers_rank_unseen_pictures_as_they_were_rated(server: Server) -> None:
    shapes = [int(1.5**level) for level in range(12)] * 3
    scores = [score(server, clutter(n, seed=5000 + i))["score"] for i, n in enumerate(shapes)]
    assert np.corrcoef(np.argsort(np.argsort(shapes)), np.argsort(np.argsort(scores)))[0, 1] > 0.7
