r"""Precision and recall of two sets of features, each seen as a union of balls; in float64.

Around every feature x_i of a set lies a ball that reaches to its k-th nearest neighbour in the same
set, and the balls together are the set's manifold:

    r_i = k-th smallest |x_i - x_j|, j != i                                                   (1)
    M(X) = union of the balls { y : |y - x_i| <= r_i }                                        (2)

Precision is the share of generated features in the manifold of the real ones (are they realistic?),
recall the share of real ones in that of the generated (is everything there?).

Distances are computed in blocks, so memory does not grow with their number.

Source: Kynkäänniemi et al. 2019, arXiv:1904.06991; k = 3 as in guided-diffusion's evaluator.
"""

import numpy as np

NEIGHBOURS = 3
ROWS, COLUMNS = 1024, 4096  # of a block of distances: 32 MiB


def precision_recall(
    real: np.ndarray, generated: np.ndarray, *, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """Precision and recall.

    Args:
        real: float [n, d], n > neighbours.
        generated: float [m, d], m > neighbours.
        neighbours: k of equation (1), >= 1.

    Returns:
        (precision, recall), both in [0, 1].

    Raises:
        ValueError: too few features, or two widths.
    """
    for name, features in (("real", real), ("generated", generated)):
        if features.ndim != 2 or len(features) <= neighbours:
            raise ValueError(
                f"precision_recall: {name} features have shape {features.shape}, expected [n, d] "
                f"with n > {neighbours}, the number of neighbours. Take more images."
            )
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"precision_recall: features have {real.shape[1]} and {generated.shape[1]} numbers, "
            "expected as many. Compute both by the same judge."
        )
    # Distances do not change when both move, and near the origin they lose fewer digits.
    centre = np.asarray(np.mean(real, axis=0, dtype=np.float64))
    precision = share_inside(generated, real, radii(real, neighbours, centre), centre)
    recall = share_inside(real, generated, radii(generated, neighbours, centre), centre)
    return precision, recall


def radii(features: np.ndarray, neighbours: int, centre: np.ndarray) -> np.ndarray:
    """Squared r_i of equation (1), f64 [n]."""
    found = np.empty(len(features))
    for start in range(0, len(features), ROWS):
        rows = features[start : start + ROWS]
        nearest = np.full((len(rows), neighbours), np.inf)
        for column in range(0, len(features), COLUMNS):
            squares = squared_distances(rows, features[column : column + COLUMNS], centre)
            own = np.arange(start, start + len(rows)) - column  # a feature is not its neighbour
            inside = (own >= 0) & (own < squares.shape[1])
            squares[np.flatnonzero(inside), own[inside]] = np.inf
            both = np.concatenate([nearest, squares], axis=1)
            nearest = np.partition(both, neighbours - 1, axis=1)[:, :neighbours]
        found[start : start + len(rows)] = nearest.max(axis=1)
    return found


def share_inside(
    points: np.ndarray, features: np.ndarray, squared_radii: np.ndarray, centre: np.ndarray
) -> float:
    """Share of points in the manifold (2) of the features."""
    inside = 0
    for start in range(0, len(points), ROWS):
        rows = points[start : start + ROWS]
        hit = np.zeros(len(rows), bool)
        for column in range(0, len(features), COLUMNS):
            squares = squared_distances(rows, features[column : column + COLUMNS], centre)
            hit |= (squares <= squared_radii[column : column + COLUMNS]).any(axis=1)
        inside += int(hit.sum())
    return inside / len(points)


def squared_distances(a: np.ndarray, b: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """|a_i - b_j|^2, f64 [n, m], never negative."""
    a, b = a.astype(np.float64) - centre, b.astype(np.float64) - centre
    squares = np.square(a).sum(axis=1)[:, None] - 2 * a @ b.T + np.square(b).sum(axis=1)
    return np.maximum(squares, 0.0)
