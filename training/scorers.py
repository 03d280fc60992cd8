"""Anything that can be evaluated: a checkpoint in torch, or a served model in ONNX Runtime."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
import torch
from torch.utils.data import DataLoader

from clicv2 import contract
from clicv2.imaging import Pixels
from clicv2.spec import PreprocessSpec
from training import fit
from training.checkpoint import Checkpoint
from training.data.images import ImageDataset
from training.data.ratings import Floats
from training.models.readout import ComplexityModel
from training.progress import show_progress


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of some images: [N] each; `score` is None without a readout."""

    score: Floats | None
    entropy: Floats


class Scorer(Protocol):
    """A model under evaluation.

    Attributes:
        spec: the preprocessing that it expects.
        fitted_on: sha256 of the ratings that its readout was fitted on, if known.
    """

    spec: PreprocessSpec
    fitted_on: str | None

    def score(self, pixels: Pixels) -> Scores:
        """Score uint8 images [N, H, W, 3]."""
        ...


class OnnxScorer:
    """A version of a model repository."""

    def __init__(self, version: contract.ModelVersion):
        self.spec = version.manifest.preprocess
        fitted_on = version.manifest.data.get("ratings_sha256")
        self.fitted_on = fitted_on if isinstance(fitted_on, str) else None
        self._session = onnxruntime.InferenceSession(version.model_file, providers=["CPUExecutionProvider"])

    def score(self, pixels: Pixels) -> Scores:
        score, entropy = self._session.run([contract.SCORE, contract.ENTROPY], {contract.INPUT: pixels})
        return Scores(score.astype(np.float64), entropy.astype(np.float64))


class TorchScorer:
    """A checkpoint, with the readout in the same folder if there is one."""

    def __init__(self, checkpoint: Path):
        loaded = Checkpoint.load(checkpoint)
        method = loaded.method()
        self.spec = loaded.recipe.input_spec
        self.fitted_on: str | None = None
        self._method = method
        folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
        self._model = None
        if (folder / fit.FILE).exists():
            self._model = ComplexityModel(method.encoder, method.entropy_head, *fit.load_readout(folder / fit.FILE))

    def score(self, pixels: Pixels) -> Scores:
        images = torch.from_numpy(pixels)
        with torch.inference_mode():
            if self._model is not None:
                score, entropy, _, _ = self._model(images)
                return Scores(score.double().numpy(), entropy.double().numpy())
            features = self._method.encoder(images.permute(0, 3, 1, 2).float() / 255.0)
            entropy = self._method.entropy_head(features.last).mean(dim=(1, 2))
            return Scores(None, entropy.double().numpy())


def open_scorer(model: Path) -> Scorer:
    """A checkpoint (a .pt file or a run's folder) or a model repository (NAME or NAME/VERSION).

    Raises ContractError when it is neither.
    """
    if model.suffix == ".pt" or (model / "checkpoint.pt").exists():
        return TorchScorer(model)
    if model.name.isdigit():
        return OnnxScorer(contract.open_version(model.parent, int(model.name)))
    return OnnxScorer(contract.open_version(model))


def score_all(scorer: Scorer, dataset: ImageDataset, batch_size: int = 32) -> Scores:
    """Score a data set, with a progress bar."""
    parts = [scorer.score(batch.numpy()) for batch in show_progress(DataLoader(dataset, batch_size), "scores")]
    scores = [part.score for part in parts if part.score is not None]
    return Scores(np.concatenate(scores) if scores else None, np.concatenate([part.entropy for part in parts]))
