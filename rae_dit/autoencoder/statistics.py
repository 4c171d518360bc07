r"""Mean and variance of latents, element by element, over a data set.

Batches are merged by the update of Chan, Golub and LeVeque (1979), in float64. For two sets of n_a
and n_b samples with means m and sums of squared deviations M:

    d = m_b - m_a,      n = n_a + n_b                                              (1)
    m = m_a + d n_b / n                                                            (2)
    M = M_a + M_b + d^2 n_a n_b / n                                                (3)

so the result does not depend on order or batch size beyond rounding, and halves computed apart can
be merged. The reference estimates both by a batch norm's running average, which does depend on the
order (SEMANTICS 4.9-12).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Statistics:
    """Count, mean and sum of squared deviations of latents.

    Attributes:
        count: samples seen.
        mean: float64 [h, w, D].
        deviation: float64 [h, w, D], the M of equation (3).
    """

    count: int
    mean: Float[np.ndarray, "h w D"]
    deviation: Float[np.ndarray, "h w D"]

    @classmethod
    def of(cls, latents: Float[np.ndarray, "B h w D"]) -> Self:
        """Statistics of one batch of at least one latent."""
        values = np.asarray(latents, np.float64)
        mean = values.mean(axis=0)
        return cls(len(values), mean, np.square(values - mean).sum(axis=0))

    @property
    def variance(self) -> Float[np.ndarray, "h w D"]:
        """Biased variance M / n, as a batch norm keeps it."""
        return self.deviation / self.count


def merge(a: Statistics, b: Statistics) -> Statistics:
    """Equations (1) to (3)."""
    count = a.count + b.count
    delta = b.mean - a.mean
    mean = a.mean + delta * (b.count / count)
    deviation = a.deviation + b.deviation + np.square(delta) * (a.count * b.count / count)
    return Statistics(count, mean, deviation)
