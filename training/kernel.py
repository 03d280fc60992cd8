"""Gaussian similarity between pictures, as columns that a ridge regression weighs like any others.

Ridge regression on these columns is kernel ridge regression (Saunders et al., ICML 1998); as columns (kernel PCA,
Schoelkopf et al., 1998) they can stand beside linear ones, and be told what should not matter. Pure numpy.
"""

from dataclasses import dataclass

import numpy as np

from training.data.ratings import Floats

# exp(-GAMMA * d^2 / the median d^2). On the dev half of SAVOIAS .2, .3 and .5 are within .004 of each other.
GAMMA = 0.3
# Of where pictures lie; 64 and 256 are within .004 of it.
DIRECTIONS = 128
# Columns whose part of the similarities is smaller than this are rounding noise.
_SMALLEST = 1e-6


@dataclass(frozen=True, slots=True)
class Kernel:
    """Similarities to landmarks, and the columns that stand for them.

    Attributes:
        directions, offset, landmarks: see `training.models.similarity.Similarity`.
        basis: [M, K] similarities [N, M] @ basis are the columns.
    """

    directions: Floats
    offset: Floats
    landmarks: Floats
    basis: Floats

    def columns(self, designs: Floats) -> Floats:
        """[N, F] -> [N, K]."""
        return np.exp(-_squares(designs @ self.directions - self.offset, self.landmarks)) @ self.basis


def similarity_to(pictures: Floats, copies: Floats, scale: Floats) -> Kernel:
    """The kernel whose landmarks are some pictures and changed copies of them.

    Args:
        pictures, copies: [N, F] designs. With the copies among the landmarks, a regression can make them score alike.
        scale: [F] by which each column counts in a distance.
    """
    centre = pictures.mean(axis=0)
    points = (np.concatenate([pictures, copies]) - centre) * scale  # [2 N, F]
    _, _, turned = np.linalg.svd(points, full_matrices=False)
    directions = turned[:DIRECTIONS].T  # [F, P]
    places = points @ directions
    count = len(pictures)
    apart = _squares(places[:count], places[:count])
    width = np.sqrt(GAMMA / np.median(apart[~np.eye(count, dtype=bool)]))
    places *= width
    values, vectors = np.linalg.eigh(np.exp(-_squares(places, places)))
    kept = values > _SMALLEST * values.max()
    basis = vectors[:, kept] / np.sqrt(values[kept])
    directions = directions * scale[:, None] * width
    kernel = Kernel(directions, centre @ directions, places, basis)
    return Kernel(directions, centre @ directions, places, basis / size(kernel.columns(pictures)))


def size(columns: Floats) -> float:
    """Root mean square distance of pictures [N, K] from their mean: by it, sets of columns can be made comparable."""
    return float(np.sqrt(columns.var(axis=0).sum()))


def _squares(a: Floats, b: Floats) -> Floats:
    """Squared distances: [N, P], [M, P] -> [N, M]."""
    squares: Floats = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
    return np.maximum(squares, 0.0)
