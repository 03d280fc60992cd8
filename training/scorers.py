"""Anything that can be evaluated: a checkpoint in torch, or a served model in ONNX Runtime."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
import torch
from torch.utils.data import DataLoader

from clicv2 import contract
from clicv2.contract import Float32
from clicv2.imaging import Pixels
from clicv2.spec import PreprocessSpec
from training import fit
from training.checkpoint import Checkpoint
from training.data.images import ImageDataset
from training.data.ratings import Floats
from training.models.computed import Computed
from training.models.readout import ComplexityModel
from training.progress import show_progress

Facts = Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model says of some images.

    Attributes:
        entropy: [N] the label-free output.
        score: [N]; None without a readout.
        heatmap: float32 [N, h, w], the local score in [0, 1] (without a readout: the label-free
            output of each cell); None when it was not asked for.
        embedding: float32 [N, D]; None when it was not asked for.
    """

    entropy: Floats
    score: Floats | None = None
    heatmap: Float32 | None = None
    embedding: Float32 | None = None


class Scorer(Protocol):
    """A model under evaluation.

    Attributes:
        spec: the preprocessing that it expects.
        fitted_on: sha256 of each table of ratings that its readout or its weights were fitted to, as far as known.
        label_free: whether no rating has touched its weights, so that `Scores.entropy` is what it is called.
        about: what it is, e.g. name, version, bytes.
    """

    spec: PreprocessSpec
    fitted_on: frozenset[str]
    label_free: bool
    about: Facts

    def score(self, pixels: Pixels, *, heatmap: bool = False, embedding: bool = False) -> Scores:
        """Score uint8 images [N, H, W, 3]; heatmap and embedding only when asked for."""
        ...


class OnnxScorer:
    """A version of a model repository."""

    def __init__(self, version: contract.ModelVersion):
        manifest = version.manifest
        self.spec = manifest.preprocess
        self.fitted_on = _seen_ratings(manifest.data)
        self.label_free = _is_label_free(manifest.data)
        self.about: Facts = {
            "name": manifest.name,
            "version": manifest.version,
            "method": manifest.method,
            "sha256": manifest.sha256,
            "bytes": version.model_file.stat().st_size,
            **{
                name: value
                for name in ("parameters", "seconds_per_image_one_core")
                if isinstance(value := manifest.measured.get(name), int | float)
            },
        }
        self._session = onnxruntime.InferenceSession(version.model_file, providers=["CPUExecutionProvider"])

    def score(self, pixels: Pixels, *, heatmap: bool = False, embedding: bool = False) -> Scores:
        wanted = [contract.SCORE, contract.ENTROPY]
        wanted += [contract.HEATMAP] * heatmap + [contract.EMBEDDING] * embedding
        found = dict(zip(wanted, self._session.run(wanted, {contract.INPUT: pixels}), strict=True))
        return Scores(
            entropy=found[contract.ENTROPY].astype(np.float64),
            score=found[contract.SCORE].astype(np.float64),
            heatmap=contract.local_score(found[contract.HEATMAP]) if heatmap else None,
            embedding=found[contract.EMBEDDING] if embedding else None,
        )


class TorchScorer:
    """A checkpoint, with the readout in the same folder if there is one."""

    def __init__(self, checkpoint: Path):
        loaded = Checkpoint.load(checkpoint)
        method = loaded.method()
        self.spec = loaded.recipe.input_spec
        self._method = method
        folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
        report = json.loads((folder / fit.REPORT).read_text()) if (folder / fit.REPORT).exists() else {}
        self.fitted_on = _seen_ratings(report)
        self.label_free = _is_label_free(report)
        self._model = None
        if (folder / fit.FILE).exists():
            self._model = ComplexityModel(method.encoder, method.label_free, *fit.load_readout(folder / fit.FILE))
        exported = method.module if self._model is None else self._model
        self.about: Facts = {
            "name": loaded.recipe.name,
            "method": loaded.recipe.method,
            "step": loaded.step,
            "parameters": sum(p.numel() for p in exported.parameters()),
        }

    def score(self, pixels: Pixels, *, heatmap: bool = False, embedding: bool = False) -> Scores:
        images = torch.from_numpy(pixels)
        with torch.inference_mode():
            if self._model is not None:
                score, entropy, logits, vectors = self._model(images)
                return Scores(
                    entropy=entropy.double().numpy(),
                    score=score.double().numpy(),
                    heatmap=contract.local_score(logits.numpy()) if heatmap else None,
                    embedding=vectors.numpy() if embedding else None,
                )
            colours = images.permute(0, 3, 1, 2).float() / 255.0
            features = self._method.encoder(colours)
            cells = self._method.label_free(Computed(colours), features)  # [N, L]
            return Scores(
                entropy=cells.mean(dim=1).double().numpy(),
                heatmap=cells.unflatten(1, features.grid).float().numpy() if heatmap else None,
                embedding=features.last.mean(dim=1).float().numpy() if embedding else None,
            )


def open_scorer(model: Path) -> Scorer:
    """A checkpoint (a .pt file or a run's folder) or a model repository (NAME or NAME/VERSION).

    Raises ContractError when it is neither.
    """
    if model.suffix == ".pt" or (model / "checkpoint.pt").exists():
        return TorchScorer(model)
    return OnnxScorer(published_version(model))


def published_version(model: Path) -> contract.ModelVersion:
    """NAME (its highest version) or NAME/VERSION of a model repository. Raises ContractError."""
    if model.name.isdigit():
        return contract.open_version(model.parent, int(model.name))
    return contract.open_version(model)


def score_all(
    scorer: Scorer,
    dataset: ImageDataset,
    batch_size: int = 32,
    *,
    heatmap: bool = False,
    embedding: bool = False,
    description: str = "scores",
) -> Scores:
    """Score a data set, with a progress bar; see `Scorer.score` for the rest."""
    batches = (batch.numpy() for batch in show_progress(DataLoader(dataset, batch_size), description))
    return score_batches(scorer, batches, heatmap=heatmap, embedding=embedding)


def score_batches(
    scorer: Scorer, batches: Iterable[Pixels], *, heatmap: bool = False, embedding: bool = False
) -> Scores:
    """Score batches of uint8 images [N, H, W, 3] and join what is said of them."""
    parts = [scorer.score(batch, heatmap=heatmap, embedding=embedding) for batch in batches]
    scores = [part.score for part in parts if part.score is not None]
    heatmaps = [part.heatmap for part in parts if part.heatmap is not None]
    embeddings = [part.embedding for part in parts if part.embedding is not None]
    return Scores(
        entropy=np.concatenate([part.entropy for part in parts]),
        score=np.concatenate(scores) if scores else None,
        heatmap=np.concatenate(heatmaps) if heatmaps else None,
        embedding=np.concatenate(embeddings) if embeddings else None,
    )


def _seen_ratings(data: Mapping[str, object]) -> frozenset[str]:
    """Sha256 of the ratings in a fit's report or in a manifest, those of earlier fine-tunings included."""
    earlier = data.get("finetuned")
    records = [data, *(earlier if isinstance(earlier, list) else [])]
    seen = (record.get("ratings_sha256") for record in records)
    return frozenset(digest for digest in seen if isinstance(digest, str))


def _is_label_free(data: Mapping[str, object]) -> bool:
    return data.get("label_free") is not False
