"""A tiny recipe on pictures that the tests make."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.recipe import Recipe


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny models run faster on one thread, and the same on every machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of coarser and finer noise; the number in the name rises with the complexity."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(12):
        cells = 2 + 3 * number
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((80, 64), Image.Resampling.NEAREST).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def ratings(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ratings of those pictures in two groups with scales of their own."""
    rows = [f"{n:02}.png,{(20 + 5 * n) if n % 2 else 8 * n},{'odd' if n % 2 else 'even'}" for n in range(12)]
    table = tmp_path_factory.mktemp("ratings") / "ratings.csv"
    table.write_text("path,score,group\n" + "\n".join(rows) + "\n")
    return table


@pytest.fixture(scope="session")
def recipe(images: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "images": [str(images)],
            "canvas": 64,
            "workers": 0,
            "input_size": 32,
            "encoder": {"dim": 16, "depth": 1, "heads": 1, "stem": [4, 4, 8]},
            "clicv2": {"view_size": 32, "shift_low": 8, "shift_high": 12},
            "clic": {"view_size": 32, "queue": 6, "hidden": 16, "dim": 8},
            "mocov2": {"view_size": 32, "queue": 6, "hidden": 16, "dim": 8},
            "optim": {"epochs": 3, "batch_size": 4, "lr": 0.002, "bf16": False},
        }
    )
