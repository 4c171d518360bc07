r"""Precision and recall of two sets of features, each seen as a union of balls; in float64.

Around every feature x_i of a set lies a ball that reaches to its k-th nearest neighbor in the same
set, and the balls together are the set's manifold:

    r_i = k-th smallest |x_i - x_j|, j != i                                                   (1)
    M(X) = union of the balls { y : |y - x_i| <= r_i }                                        (2)

Precision is the share of generated features in the manifold of the real ones (are they realistic?),
recall the share of real ones in that of the generated (is everything there?).

Distances are computed in blocks, so memory does not grow with their number.

Source: Kynkäänniemi et al. 2019, arXiv:1904.06991; k = 3 as in guided-diffusion's evaluator.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from rae_dit.evaluation.metrics.base import Features, Metric
from rae_dit.multihost.sums import Together

NEIGHBORS = 3
MAX_REAL = 10_000  # real images whose features are kept, as many as in ADM's reference files
ROWS, COLUMNS = 1024, 4096  # of a block of distances: 32 MiB


@dataclass(eq=False)
class PrecisionRecall(Metric):
    """Both metrics, from the pool features themselves.

    Attributes:
        rows: float32 features of the images whose number `feature_stride` divides.
    """

    names = ("precision", "recall")
    needs = ("pool",)
    lower_is_better = False
    compares = True
    min_images = NEIGHBORS + 1
    stored_as = (("activations",),)

    rows: list[np.ndarray] = field(default_factory=list)

    def update(self, numbers: np.ndarray, features: Features, labels: np.ndarray | None) -> None:
        """Adds the features of a batch that are to be kept."""
        kept = features.pool[numbers % self.feature_stride == 0]
        self.rows.append(kept.astype(np.float32))

    def over_processes(self, together: Together) -> Self:
        """Returns the kept features of all processes on process 0; the others get none."""
        width = together.largest(self.rows[0].shape[1] if self.rows else 0)
        rows = together.gather_rows(np.concatenate([np.zeros((0, width), np.float32), *self.rows]))
        return type(self)(self.feature_stride, [rows] if len(rows) else [])

    def features(self) -> np.ndarray:
        """Returns the kept features, f32 [n, d].

        Raises:
            ValueError: there are none.
        """
        if not self.rows:
            raise ValueError("precision, recall: got no features; expected at least one image")
        return np.concatenate(self.rows)

    def compute(self, reference: Self | None) -> dict[str, float]:
        """Computes precision and recall."""
        assert reference is not None
        precision, recall = precision_recall(reference.features(), self.features())
        return {"precision": precision, "recall": recall}

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns the kept features and their stride."""
        return {"rows": self.features(), "feature_stride": np.array(self.feature_stride, np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Restores the features from `to_arrays`."""
        return cls(int(arrays["feature_stride"]), [arrays["rows"]])

    @classmethod
    def from_reference(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Takes the features of real images from the file."""
        return cls(rows=[arrays["activations"].astype(np.float32)])


def precision_recall(
    real: np.ndarray, generated: np.ndarray, *, neighbors: int = NEIGHBORS
) -> tuple[float, float]:
    """Computes precision and recall of two sets of features.

    Args:
        real: float [n, d], n > neighbors.
        generated: float [m, d], m > neighbors.
        neighbors: k of equation (1), >= 1.

    Returns:
        (precision, recall), both in [0, 1].

    Raises:
        ValueError: too few features, or two widths.
    """
    for name, features in (("real", real), ("generated", generated)):
        if features.ndim != 2 or len(features) <= neighbors:
            raise ValueError(
                f"precision_recall: got {name} features of shape {features.shape}; expected "
                f"[n, d] with n > {neighbors}, the number of neighbors"
            )
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"precision_recall: got features of {real.shape[1]} and {generated.shape[1]} numbers; "
            "expected as many, from one extractor"
        )
    # Distances do not change when both move, and near the origin they lose fewer digits.
    center = np.asarray(np.mean(real, axis=0, dtype=np.float64))
    precision = share_inside(generated, real, radii(real, neighbors, center), center)
    recall = share_inside(real, generated, radii(generated, neighbors, center), center)
    return precision, recall


def radii(features: np.ndarray, neighbors: int, center: np.ndarray) -> np.ndarray:
    """Returns squared r_i of equation (1), f64 [n]."""
    found = np.empty(len(features))
    for start in range(0, len(features), ROWS):
        rows = features[start : start + ROWS]
        nearest = np.full((len(rows), neighbors), np.inf)
        for column in range(0, len(features), COLUMNS):
            squares = squared_distances(rows, features[column : column + COLUMNS], center)
            own = np.arange(start, start + len(rows)) - column  # a feature is not its neighbor
            inside = (own >= 0) & (own < squares.shape[1])
            squares[np.flatnonzero(inside), own[inside]] = np.inf
            both = np.concatenate([nearest, squares], axis=1)
            nearest = np.partition(both, neighbors - 1, axis=1)[:, :neighbors]
        found[start : start + len(rows)] = nearest.max(axis=1)
    return found


def share_inside(
    points: np.ndarray, features: np.ndarray, squared_radii: np.ndarray, center: np.ndarray
) -> float:
    """Returns the share of points in the manifold (2) of the features."""
    inside = 0
    for start in range(0, len(points), ROWS):
        rows = points[start : start + ROWS]
        hit = np.zeros(len(rows), bool)
        for column in range(0, len(features), COLUMNS):
            squares = squared_distances(rows, features[column : column + COLUMNS], center)
            hit |= (squares <= squared_radii[column : column + COLUMNS]).any(axis=1)
        inside += int(hit.sum())
    return inside / len(points)


def squared_distances(a: np.ndarray, b: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Returns |a_i - b_j|^2, f64 [n, m], never negative."""
    a, b = a.astype(np.float64) - center, b.astype(np.float64) - center
    squares = np.square(a).sum(axis=1)[:, None] - 2 * a @ b.T + np.square(b).sum(axis=1)
    return np.maximum(squares, 0.0)
