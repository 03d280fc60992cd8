from dataclasses import replace

import numpy as np
import pytest

from clicv2.contract import Manifest
from service.prediction import BadOutput, Predictions


def predictions(manifest: Manifest, size: int = 3) -> Predictions:
    rng = np.random.default_rng(0)
    return Predictions(
        1,
        rng.random(size, np.float32),
        rng.random(size, np.float32),
        rng.standard_normal((size, *manifest.grid), np.float32),
        rng.standard_normal((size, manifest.embedding_size), np.float32),
    )


def test_rows(manifest: Manifest) -> None:
    good = predictions(manifest)
    good.check_shapes(3, manifest)
    assert good.at(1).score == good.score[1]
    np.testing.assert_array_equal(good.at(2).heatmap, good.heatmap[2])


@pytest.mark.parametrize("tensor", ["score", "entropy", "heatmap", "embedding"])
def test_a_wrong_shape(manifest: Manifest, tensor: str) -> None:
    good = predictions(manifest)
    with pytest.raises(BadOutput, match=tensor):
        replace(good, **{tensor: getattr(good, tensor)[..., :-1]}).check_shapes(3, manifest)


@pytest.mark.parametrize("tensor", ["score", "entropy", "heatmap", "embedding"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_answer(manifest: Manifest, tensor: str, value: float) -> None:
    bad = predictions(manifest)
    getattr(bad, tensor)[1].flat[-1:] = value
    if getattr(bad, tensor).ndim == 1:
        getattr(bad, tensor)[1] = value
    bad.at(0)
    bad.at(2)
    with pytest.raises(BadOutput):
        bad.at(1)


def test_a_score_beyond_its_range(manifest: Manifest) -> None:
    bad = predictions(manifest)
    bad.score[1] = 1.01
    with pytest.raises(BadOutput):
        bad.at(1)
