"""The contract between an exported model and whoever serves it: tensors, and the manifest beside it."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clicv2.errors import ContractError
from clicv2.spec import PreprocessSpec

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
# Key in the ONNX metadata that carries PreprocessSpec.fingerprint().
FINGERPRINT_KEY = "preprocess_fingerprint"

INPUT = "image"  # uint8 [B, H, W, 3]
SCORE = "score"  # float32 [B] in [0, 1], calibrated to human ratings
ENTROPY = "entropy"  # float32 [B] in [0, 1], label-free: no human rating has touched it
HEATMAP = "heatmap"  # float32 [B, h, w], local complexity as logits: score == sigmoid(mean(heatmap))
EMBEDDING = "embedding"  # float32 [B, D]
OUTPUTS = (SCORE, ENTROPY, HEATMAP, EMBEDDING)

Float32 = npt.NDArray[np.float32]


def local_score(heatmap: Float32) -> Float32:
    """Heatmap cells (logits, any shape) on the score's own scale of 0 to 1.

    A cell's value is the score of a picture that looked like this cell everywhere.
    """
    # The sigmoid by way of tanh, which does not overflow.
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * heatmap.astype(np.float64)), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured quality with its bootstrap interval.

    Attributes:
        value: the estimate.
        low, high: bounds of the 95 % interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model says of itself; written by `clicv2-train export`, checked before serving.

    Attributes:
        name, version: as in model_repository/NAME/VERSION.
        method: how the features were pretrained, e.g. "CLICv2".
        recipe: the training recipe, as it was run.
        data: what the model was trained, calibrated and referenced on.
        preprocess, fingerprint: the preprocessing that the model expects.
        grid: rows and columns of the heatmap.
        embedding_size: D of the `embedding` output.
        calibration: how the mean heatmap cell becomes the score; inside the graph already.
        reference: scores of the reference set at the percentiles 0, 1, ... 100.
        figures: quality on the evaluation sets, by measure.
        measured: other facts as measured at export, e.g. seconds an image.
        sha256: of the model file.
    """

    name: str
    version: int
    method: str
    recipe: Mapping[str, object]
    data: Mapping[str, object]
    preprocess: PreprocessSpec
    fingerprint: str
    grid: tuple[int, int]
    embedding_size: int
    calibration: Mapping[str, object]
    reference: tuple[float, ...]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    measured: Mapping[str, object] = field(default_factory=dict)
    sha256: str = ""

    def percentile(self, score: float) -> float:
        """Share of the reference set, in percent, that scores lower."""
        return float(np.interp(score, self.reference, np.linspace(0.0, 100.0, len(self.reference))))

    def save(self, path: Path) -> None:
        content = asdict(self) | {"preprocess": self.preprocess.to_dict()}
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Manifest":
        """Read and check a manifest. Raises ContractError."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            spec = PreprocessSpec.from_dict(content.pop("preprocess"))
            content["figures"] = {name: Figure(**figure) for name, figure in content["figures"].items()}
            content["grid"] = tuple(content["grid"])
            content["reference"] = tuple(float(score) for score in content["reference"])
            manifest = cls(preprocess=spec, **content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ContractError(f"manifest {path}: {error}") from error
        if not manifest.reference or not all(a <= b for a, b in pairwise(manifest.reference)):
            raise ContractError(f"manifest {path}: the reference scores do not rise")
        if manifest.fingerprint != spec.fingerprint():
            raise ContractError(
                f"manifest {path}: made for preprocessing {manifest.fingerprint}, "
                f"but its settings give {spec.fingerprint()} with this code"
            )
        return manifest


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version in a model repository.

    Attributes:
        folder: model_repository/NAME/VERSION.
        manifest: what it says of itself.
    """

    folder: Path
    manifest: Manifest

    @property
    def model_file(self) -> Path:
        return self.folder / MODEL_FILE


def versions(model: Path) -> list[int]:
    """The numbers of the versions in a model's folder, lowest first."""
    return sorted(int(d.name) for d in model.glob("*") if re.fullmatch(r"[1-9]\d*", d.name))


def find_version(model: Path, version: int | None = None) -> ModelVersion:
    """Find a version (None: the highest) of the model in `model` and read its manifest, but not its file.

    Raises ContractError when it is missing, or made for other preprocessing.
    """
    found = versions(model)
    if not found:
        raise ContractError(f"no model version in {model.resolve()} (expected {model / '1' / MODEL_FILE})")
    if version is not None and version not in found:
        raise ContractError(f"{model} has versions {found}, not {version}")
    folder = model / str(found[-1] if version is None else version)
    return ModelVersion(folder, Manifest.load(folder / MANIFEST_FILE))


def open_version(model: Path, version: int | None = None) -> ModelVersion:
    """`find_version`, and check the model's file against the manifest.

    Raises ContractError when it is missing, altered since export, or made for other preprocessing.
    """
    found = find_version(model, version)
    try:
        digest = hashlib.sha256(found.model_file.read_bytes()).hexdigest()
    except OSError as error:
        raise ContractError(f"model {found.folder}: {error}") from error
    if digest != found.manifest.sha256:
        raise ContractError(f"{found.model_file} is not the file that its manifest describes (sha256 {digest})")
    return found
