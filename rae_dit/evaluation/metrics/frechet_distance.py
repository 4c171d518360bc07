"""Fréchet distance between two sets of features modeled as Gaussians, in float64.

Features x_1 … x_n in R^d are summarized by their mean m and unbiased covariance S,

    m = (1/n) sum_i x_i,        S = (1/(n-1)) sum_i (x_i - m)(x_i - m)^T.                      (1)

Two summaries merge without the features. With the scatter Q = (n-1) S and the shift
delta = m_b - m_a, expanding x - m = (x - m_a) - (m - m_a) in (1) leaves

    n = n_a + n_b,    m = m_a + (n_b/n) delta,    Q = Q_a + Q_b + (n_a n_b/n) delta delta^T.   (2)

The 2-Wasserstein distance between the Gaussians N(m_1, S_1) and N(m_2, S_2) is

    F = |m_1 - m_2|^2 + Tr S_1 + Tr S_2 - 2 Tr (S_1 S_2)^{1/2}.                                (3)

The product S_1 S_2 is not symmetric, and a general matrix square root of it turns complex or NaN
when a covariance is singular (fewer features than dimensions, or a pixel that never changes).
But with R_k the symmetric root of S_k (R_k R_k = S_k, from `eigh`, negatives clipped to zero),

    S_1 S_2 = R_1 (R_1 S_2)   has the nonzero eigenvalues of   (R_1 S_2) R_1 = A A^T,
    A = R_1 R_2,                                                                               (4)

as XY and YX always share theirs. A A^T is symmetric and positive semi-definite, and the square
roots of its eigenvalues are the singular values of A, so

    Tr (S_1 S_2)^{1/2} = sum_i sqrt(lambda_i(R_1 S_2 R_1)) = sum_i sigma_i(R_1 R_2).           (5)

We take the right-hand side of (5). Rounding leaves each lambda_i wrong by about e = 2e-16 times
the largest one, and sqrt would blow that up to sqrt(e) = 1e-8 in every empty direction; a
singular value is wrong by e only. For the same reason eigenvalues of S_k that are rounding and
nothing else (below d e times the largest) count as zero. With (5), F >= 0 in exact arithmetic;
what rounding puts below zero is set to zero.

Source: Dowson & Landau 1982 (3); Chan, Golub & LeVeque 1979 (2); Heusel et al. 2017,
arXiv:1706.08500, who use (3) on Inception features. The reference implementation calls
`scipy.linalg.sqrtm` and adds 1e-6 to the diagonals when that fails; (5) needs no such repair.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and unbiased covariance of a set of features, for equation (3).

    Attributes:
        mean: f64 [d], in the unit of the features.
        covariance: f64 [d, d], symmetric, in that unit squared; zeros when `count` is 1.
        count: number of features summarized, >= 1.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int

    def __post_init__(self) -> None:
        """Converts to float64 and checks shapes, finiteness and symmetry.

        Raises:
            ValueError: a wrong shape, a value that is not finite, an asymmetric covariance, or
                a count below one.
        """
        mean = np.asarray(self.mean, np.float64)
        covariance = np.asarray(self.covariance, np.float64)
        if mean.ndim != 1 or mean.size == 0:
            raise ValueError(f"Moments: got a mean of shape {mean.shape}; expected [d] with d >= 1")
        if covariance.shape != (mean.size, mean.size):
            raise ValueError(
                f"Moments: got a covariance of shape {covariance.shape}; expected "
                f"{(mean.size, mean.size)} as of the mean"
            )
        _require_finite("mean", mean)
        _require_finite("covariance", covariance)
        scale = float(np.abs(covariance).max())
        if float(np.abs(covariance - covariance.T).max()) > 1e-6 * scale:
            raise ValueError("Moments: got a covariance that is not symmetric; expected S = S^T")
        if self.count < 1:
            raise ValueError(f"Moments: got count {self.count}; expected >= 1")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """Computes the moments of the rows of `features`, equation (1).

        Args:
            features: float [n, d], n >= 1, any unit; computed in float64.

        Returns:
            Moments whose covariance equals `numpy.cov(features, rowvar=False)`. One row gives
            a covariance of zeros, so that batches of any size can be merged.

        Raises:
            ValueError: not two axes, no rows, or values that are not finite.
        """
        features = np.asarray(features, np.float64)
        if features.ndim != 2 or 0 in features.shape:
            raise ValueError(
                f"Moments.of: got features of shape {features.shape}; expected [n, d] without "
                "empty axes"
            )
        _require_finite("features", features)
        mean = features.mean(axis=0)
        centered = features - mean
        return cls(mean, centered.T @ centered / max(len(features) - 1, 1), len(features))


def merge(a: Moments, b: Moments) -> Moments:
    """Merges the moments of two sets, equation (2); exact up to rounding.

    Args:
        a: moments of the first set, d dimensions.
        b: moments of the second set, d dimensions.

    Returns:
        What `Moments.of` gives on both sets of features together.

    Raises:
        ValueError: the two differ in dimensions.
    """
    _require_same_dimensions("merge", a, b)
    count = a.count + b.count
    delta = b.mean - a.mean
    scatter = (
        (a.count - 1) * a.covariance
        + (b.count - 1) * b.covariance
        + (a.count * b.count / count) * np.outer(delta, delta)
    )
    return Moments(a.mean + (b.count / count) * delta, scatter / (count - 1), count)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Computes the squared 2-Wasserstein distance of two Gaussians, equations (3) and (5).

    Args:
        a: moments of the first set, d dimensions, at least two features.
        b: moments of the second set, d dimensions, at least two features.

    Returns:
        A finite float >= 0, in the unit of the features squared. Few features bias it upwards,
        so only values of equal counts are comparable.

    Raises:
        ValueError: the two differ in dimensions, or one summarizes a single feature.
    """
    _require_same_dimensions("frechet_distance", a, b)
    for name, moments in (("first", a), ("second", b)):
        if moments.count < 2:
            raise ValueError(
                f"frechet_distance: got {name} moments of {moments.count} feature; expected at "
                "least 2 for a covariance"
            )
    overlap = _root(a.covariance) @ _root(b.covariance)
    trace_of_root = np.linalg.svd(overlap, compute_uv=False).sum()
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    distance = np.square(a.mean - b.mean).sum() + traces - 2.0 * trace_of_root
    return max(float(distance), 0.0)


def _root(covariance: np.ndarray) -> np.ndarray:
    """Computes the symmetric root R of a positive semi-definite S [d, d], R R = S."""
    eigenvalues, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    rounding = len(eigenvalues) * np.finfo(np.float64).eps * eigenvalues[-1]
    kept = np.where(eigenvalues > max(rounding, 0.0), eigenvalues, 0.0)
    return (vectors * np.sqrt(kept)) @ vectors.T


def _require_finite(name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(
            f"Moments: got {int((~np.isfinite(values)).sum())} values of {name} that are not "
            f"finite (first at index {first}); expected finite numbers"
        )


def _require_same_dimensions(where: str, a: Moments, b: Moments) -> None:
    if a.mean.size != b.mean.size:
        raise ValueError(
            f"{where}: got moments of {a.mean.size} and {b.mean.size} dimensions; expected equal"
        )
