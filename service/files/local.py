"""Scores files in this process, by the service's own preprocessing and backend."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from clicv2.contract import Manifest, ModelVersion
from clicv2.headers import Limits
from clicv2.imaging import Pixels
from service import decoding
from service.backend.onnx import OnnxBackend
from service.backend.protocol import BackendError
from service.decoding import Decoded
from service.files.finding import Picture, Source
from service.files.heatmaps import SIDE, Heatmaps
from service.files.names import as_text
from service.files.pipeline import PictureError
from service.files.rows import Row
from service.files.score_file import Making
from service.prediction import BadOutput, Prediction, Predictions

_LEVELS = np.arange(256.0)
_HALF = 127.5  # of the levels: the deviation of half black and half white


class _InThisThread(OnnxBackend):
    """The embedded backend without its threads: here a picture stays in the one that decoded it."""

    def run(self, images: Pixels) -> Predictions:
        return self._run(images)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A picture with what the model says of it."""

    decoded: Decoded
    prediction: Prediction
    bytes: int


class LocalScorer:
    """See `service.files.pipeline.Scorer`."""

    def __init__(self, version: ModelVersion, limits: Limits, threads: int, heatmaps: Heatmaps | None = None) -> None:
        """Raises ContractError if the model file is not what its manifest says."""
        self._backend = _InThisThread(version, threads)
        self._limits = limits
        self._heatmaps = heatmaps
        folder = heatmaps.folder if heatmaps else None
        self.making = Making.by(self.manifest.name, self.manifest.version, self.manifest.sha256, folder)

    @property
    def manifest(self) -> Manifest:
        return self._backend.manifest

    @property
    def max_bytes(self) -> int:
        return self._limits.max_bytes

    def answer(self, source: Source, preview_side: int | None = None) -> Answer:
        """Raises OSError, ImageError, PictureError."""
        data = source.read(self.max_bytes)
        decoded = decoding.decode(data, self.manifest.preprocess, self._limits, preview_side)
        try:
            predictions = self._backend.run(decoded.pixels[None])
            predictions.check_shapes(1, self.manifest)
            return Answer(decoded, predictions.at(0), len(data))
        except (BackendError, BadOutput) as error:
            raise PictureError(str(error)) from error

    def row(self, picture: Picture) -> Row:
        answer = self.answer(picture.source, SIDE if self._heatmaps else None)
        decoded, prediction = answer.decoded, answer.prediction
        heatmap = self._heatmaps.draw(picture.path, prediction.heatmap, decoded) if self._heatmaps else None
        return Row(
            path=picture.path,
            score=round(prediction.score, 6),
            percentile=round(self.manifest.percentile(prediction.score), 2),
            entropy=round(prediction.entropy, 6),
            width=decoded.width,
            height=decoded.height,
            format=decoded.format,
            bytes=answer.bytes,
            contrast=contrast(decoded.pixels),
            sha256=decoded.sha256,
            model=self.making.model,
            model_sha256=self.making.model_sha256,
            heatmap=as_text(str(heatmap)) if heatmap else None,
        )


def contrast(pixels: Pixels) -> float:
    """How much there is to see, of uint8 [H, W, 3]: 0 for one colour, 1 for half black and half white.

    The largest of the channels' standard deviations. By their histograms, for numpy's own takes 1.8 ms, a tenth of what
    the model does.
    """
    counts = np.reshape(Image.fromarray(pixels).histogram(), (3, -1))  # [3, 256]
    shares = counts / counts.sum(axis=1, keepdims=True)
    means = shares @ _LEVELS
    deviations = np.sqrt(np.sum(shares * (_LEVELS - means[:, None]) ** 2, axis=1))
    return round(float(deviations.max()) / _HALF, 4)
