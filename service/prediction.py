"""What a model says of pictures, and whether it can be believed."""

from dataclasses import dataclass

import numpy as np

from clicv2.contract import Float32, Manifest


class BadOutput(Exception):
    """The model answered, but not by its contract."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The model's outputs for one picture; see `clicv2.contract`.

    Attributes:
        version: of the model that said it.
        score, entropy: in [0, 1].
        heatmap: [h, w] logits.
        embedding: [D].
    """

    version: int
    score: float
    entropy: float
    heatmap: Float32
    embedding: Float32


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The model's outputs for a batch, as they came; `at` judges them.

    Attributes:
        version: of the model that made them.
        score, entropy: [B].
        heatmap: [B, h, w] logits.
        embedding: [B, D].
    """

    version: int
    score: Float32
    entropy: Float32
    heatmap: Float32
    embedding: Float32

    def check_shapes(self, batch: int, manifest: Manifest) -> None:
        """Raises BadOutput unless every tensor is of the contract's shape: then no row can be trusted."""
        expected = {
            "score": (batch,),
            "entropy": (batch,),
            "heatmap": (batch, *manifest.grid),
            "embedding": (batch, manifest.embedding_size),
        }
        for name, shape in expected.items():
            actual = getattr(self, name).shape
            if actual != shape:
                raise BadOutput(f"the model's {name} has the shape {list(actual)}, its contract says {list(shape)}")

    def at(self, index: int) -> Prediction:
        """One picture's share. Raises BadOutput for values that are no answer."""
        one = Prediction(
            self.version,
            float(self.score[index]),
            float(self.entropy[index]),
            self.heatmap[index],
            self.embedding[index],
        )
        if not (0.0 <= one.score <= 1.0 and 0.0 <= one.entropy <= 1.0):  # NaN fails both
            raise BadOutput(f"the model's score {one.score} or entropy {one.entropy} is not in [0, 1]")
        if not (np.isfinite(one.heatmap).all() and np.isfinite(one.embedding).all()):
            raise BadOutput("the model's heatmap or embedding holds values that are not finite")
        return one
