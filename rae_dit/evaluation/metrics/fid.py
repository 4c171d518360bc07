"""FID: Fréchet distance between the Inception's pool features of generated and real images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from rae_dit.evaluation.metrics.base import Features, Metric
from rae_dit.evaluation.metrics.frechet_distance import Moments, frechet_distance, merge
from rae_dit.multihost.sums import Together

BUFFERED = 2048  # rows; merging moments costs as much as adding some hundred rows
UNKNOWN_COUNT = 2  # of moments from a file that does not tell: enough for a distance, never merged


@dataclass(eq=False)
class FID(Metric):
    """Fréchet distance of one kind of features; its memory does not grow with the images.

    Attributes:
        merged: moments of the features so far, without those that wait; None for none.
        waiting: rows that are not in `merged` yet.
    """

    names = ("fid",)
    needs = ("pool",)
    lower_is_better = True
    compares = True
    stored_as: ClassVar[tuple[tuple[str, ...], ...]] = (("mu", "sigma"), ("activations",))

    merged: Moments | None = None
    waiting: list[np.ndarray] = field(default_factory=list)

    def update(self, numbers: np.ndarray, features: Features, labels: np.ndarray | None) -> None:
        """Adds a batch."""
        self.waiting.append(getattr(features, self.needs[0]))
        if sum(map(len, self.waiting)) >= BUFFERED:
            self._flush()

    def over_processes(self, together: Together) -> Self:
        """Returns the moments over all processes: sums around their common mean.

        With the mean m of all, the scatter Q = sum_p (Q_p + n_p (m_p - m)(m_p - m)^T) adds up.
        """
        self._flush()
        own = self.merged
        width = together.largest(0 if own is None else own.mean.size)
        if not width:
            return type(self)(self.feature_stride)
        if own is None:
            own = Moments(np.zeros(width), np.zeros((width, width)), 1)
            own_count = 0
        else:
            own_count = own.count
        count = int(together.sum_integers(np.array(own_count)))
        mean = together.sum_floats(own_count * own.mean) / count
        away = own.mean - mean
        scatter = max(own_count - 1, 0) * own.covariance + own_count * np.outer(away, away)
        covariance = together.sum_floats(scatter) / max(count - 1, 1)
        return type(self)(self.feature_stride, Moments(mean, covariance, count))

    def moments(self) -> Moments:
        """Returns the moments of all features added.

        Raises:
            ValueError: there are none.
        """
        self._flush()
        if self.merged is None:
            raise ValueError(f"{self.names[0]}: got no features; expected at least one image")
        return self.merged

    def compute(self, reference: Self | None) -> dict[str, float]:
        """Computes the distance to the reference."""
        assert reference is not None
        return {self.names[0]: frechet_distance(reference.moments(), self.moments())}

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns mean, covariance and count, f64 and int64."""
        found, name = self.moments(), self.needs[0]
        return {
            f"{name}_mean": found.mean,
            f"{name}_covariance": found.covariance,
            f"{name}_count": np.array(found.count, np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Restores the moments from `to_arrays`."""
        parts = (arrays[f"{cls.needs[0]}_{part}"] for part in ("mean", "covariance", "count"))
        mean, covariance, count = parts
        return cls(merged=Moments(mean, covariance, int(count)))

    @classmethod
    def from_reference(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Takes mean and covariance from the file, or computes them from the features in it."""
        mean, covariance = cls.stored_as[0]
        if {mean, covariance} <= arrays.keys():
            return cls(merged=Moments(arrays[mean], arrays[covariance], UNKNOWN_COUNT))
        return cls(merged=Moments.of(arrays["activations"]))

    def _take(self, moments: Moments) -> None:
        self.merged = moments if self.merged is None else merge(self.merged, moments)

    def _flush(self) -> None:
        if self.waiting:
            self._take(Moments.of(np.concatenate(self.waiting)))
            self.waiting = []
