"""What is evaluated: a run and a model repository, with and without heatmaps and embeddings."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch

from clicv2 import contract
from clicv2.contract import Manifest
from clicv2.imaging import Pixels
from training.data.images import ImageDataset, find_images
from training.data.ratings import file_sha256
from training.fit import FILE, REPORT, fit_run
from training.pretrain import pretrain
from training.recipe import Recipe
from training.scorers import OnnxScorer, Scorer, TorchScorer, open_scorer, score_all, score_batches


@pytest.fixture
def run(recipe: Recipe, images: Path, ratings: Path, tmp_path: Path) -> Path:
    """A run with a readout."""
    optim = recipe.optim.model_copy(update={"epochs": 1})
    pretrain(recipe.model_copy(update={"optim": optim}), tmp_path / "run")
    fit_run(tmp_path / "run", [images], ratings, (), (0.0, 100.0))
    return tmp_path / "run"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tiny_model.write(tmp_path / "repository") / "clicv2"


def noise(scorer: Scorer, count: int = 5) -> Pixels:
    shape = (count, scorer.spec.height, scorer.spec.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(params=["run", "without readout", "repository"])
def scorer(request: pytest.FixtureRequest) -> Scorer:
    if request.param == "repository":
        return open_scorer(request.getfixturevalue("repository"))
    run: Path = request.getfixturevalue("run")
    if request.param == "without readout":
        (run / FILE).unlink()
    return open_scorer(run)


def test_nothing_is_given_that_was_not_asked_for(scorer: Scorer) -> None:
    pixels = noise(scorer)
    plain = scorer.score(pixels)
    assert plain.heatmap is None
    assert plain.embedding is None
    whole = scorer.score(pixels, heatmap=True, embedding=True)
    assert whole.entropy.tolist() == plain.entropy.tolist()
    assert whole.heatmap is not None
    assert whole.embedding is not None
    assert whole.heatmap.ndim == 3
    assert whole.embedding.ndim == 2
    assert len(whole.heatmap) == len(whole.embedding) == len(pixels)
    assert whole.heatmap.dtype == whole.embedding.dtype == np.float32
    only = scorer.score(pixels, embedding=True)
    assert only.heatmap is None
    assert only.embedding is not None
    assert (only.embedding == whole.embedding).all()


def test_the_heatmap_explains_what_the_model_says(scorer: Scorer) -> None:
    found = scorer.score(noise(scorer), heatmap=True)
    assert found.heatmap is not None
    assert found.heatmap.min() >= 0.0
    assert found.heatmap.max() <= 1.0
    cells = found.heatmap.astype(np.float64).reshape(5, -1)
    if found.score is None:  # the label-free output is the mean of its cells
        assert cells.mean(axis=1) == pytest.approx(found.entropy, abs=1e-5)
    else:  # the score's mean is taken of the logits
        logits = np.log(cells / (1 - cells)).mean(axis=1)
        assert 1 / (1 + np.exp(-logits)) == pytest.approx(found.score, abs=1e-4)


def test_batches_are_joined_in_order(repository: Path, images: Path) -> None:
    scorer = open_scorer(repository)
    dataset = ImageDataset(find_images([images]), scorer.spec)
    whole = scorer.score(np.stack([dataset[i].numpy() for i in range(len(dataset))]), heatmap=True, embedding=True)
    parts = score_all(scorer, dataset, batch_size=5, heatmap=True, embedding=True)
    for name in ("entropy", "score", "heatmap", "embedding"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), abs=1e-5)
    assert score_all(scorer, dataset, batch_size=5).heatmap is None
    assert score_batches(scorer, [noise(scorer, 2), noise(scorer, 3)]).entropy.shape == (5,)


def test_a_run_knows_which_ratings_it_was_fitted_to(run: Path, ratings: Path) -> None:
    for path in (run, run / "checkpoint.pt"):
        scorer = open_scorer(path)
        assert isinstance(scorer, TorchScorer)
        assert scorer.fitted_on == {file_sha256(ratings)}
        assert scorer.label_free
        assert scorer.about["name"] == "tiny"
    report = json.loads((run / REPORT).read_text())
    report |= {"finetuned": [{"ratings_sha256": "earlier"}], "label_free": False}
    (run / REPORT).write_text(json.dumps(report))
    tuned = open_scorer(run)
    assert tuned.fitted_on == {file_sha256(ratings), "earlier"}
    assert not tuned.label_free


def test_a_run_without_a_report_was_fitted_to_nothing(run: Path) -> None:
    (run / REPORT).unlink()
    (run / FILE).unlink()
    scorer = open_scorer(run)
    assert scorer.fitted_on == frozenset()
    assert scorer.label_free
    weights = torch.load(run / "checkpoint.pt", weights_only=True)["weights"]
    assert scorer.about["parameters"] <= sum(w.numel() for w in weights.values())


def test_a_repository_tells_what_its_manifest_does(repository: Path) -> None:
    path = repository / "1" / contract.MANIFEST_FILE
    manifest = Manifest.load(path)
    content = json.loads(path.read_text())
    content["data"] |= {"ratings_sha256": "abc", "label_free": False}
    content["measured"] = {"parameters": 12, "seconds_per_image_one_core": 0.5, "parity_with_torch": 1e-6}
    path.write_text(json.dumps(content))
    for given in (repository, repository / "1"):
        scorer = open_scorer(given)
        assert isinstance(scorer, OnnxScorer)
        assert scorer.fitted_on == {"abc"}
        assert not scorer.label_free
        assert scorer.about == {
            "name": "clicv2",
            "version": 1,
            "method": "gradient",
            "sha256": manifest.sha256,
            "bytes": (repository / "1" / contract.MODEL_FILE).stat().st_size,
            "parameters": 12,
            "seconds_per_image_one_core": 0.5,
        }
