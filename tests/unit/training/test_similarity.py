"""Similarity to rated pictures: the kernel's columns, what the graph makes of them, and what is far from all."""

import numpy as np
import pytest
import torch

from training.data.ratings import Floats
from training.kernel import GAMMA, Kernel, similarity_to, size
from training.models.similarity import Similarity

RNG = np.random.default_rng(0)


def designs(count: int = 40, features: int = 6) -> tuple[Floats, Floats]:
    """Of pictures, and of changed copies."""
    pictures = RNG.normal(3.0, 2.0, (count, features))
    return pictures, pictures + 0.1 * RNG.normal(size=(count, features))


def test_columns_have_the_similarities_for_inner_products() -> None:
    pictures, copies = designs()
    scale = np.linspace(0.5, 2.0, 6)
    kernel = similarity_to(pictures, copies, scale)
    points = np.concatenate([pictures, copies])
    apart = np.array([[np.sum(((a - b) * scale) ** 2) for b in points] for a in points])
    median = np.median([apart[i, j] for i in range(40) for j in range(40) if i != j])
    columns = kernel.columns(points)
    expected = np.exp(-GAMMA * apart / median)
    found = columns @ columns.T
    assert found / found[0, 0] == pytest.approx(expected, abs=1e-3)
    assert size(kernel.columns(pictures)) == pytest.approx(1.0)


def in_graph(kernel: Kernel, weight: Floats) -> Similarity:
    parts = (kernel.directions, kernel.offset, kernel.landmarks, kernel.basis @ weight)
    return Similarity(*(torch.from_numpy(part) for part in parts))


def test_the_graph_says_what_the_columns_say() -> None:
    pictures, copies = designs()
    kernel = similarity_to(pictures, copies, np.ones(6))
    weight = RNG.normal(size=kernel.basis.shape[1]) * np.linspace(1, 0, kernel.basis.shape[1]) ** 4
    others = RNG.normal(3.0, 2.0, (10, 6))
    found = in_graph(kernel, weight)(torch.from_numpy(others).float())
    assert found.numpy() == pytest.approx(kernel.columns(others) @ weight, abs=1e-3)


def test_what_resembles_nothing_has_nothing_added() -> None:
    pictures, copies = designs()
    kernel = similarity_to(pictures, copies, np.ones(6))
    similarity = in_graph(kernel, RNG.normal(size=kernel.basis.shape[1]))
    assert similarity(torch.full((1, 6), 1e3)).item() == 0
    assert similarity(torch.from_numpy(pictures[:1]).float()).item() != 0
