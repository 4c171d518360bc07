r"""Inception Score: images should show one thing each, and many things together.

With p_i the classifier's probabilities of image i, over the n images of a split

    S = exp( (1/n) sum_i sum_c p_ic (log p_ic - log q_c) ),    q_c = (1/n) sum_i p_ic         (1)
      = exp( (1/n) sum_i sum_c p_ic log p_ic - sum_c q_c log q_c ),                           (2)

and the score is the mean of S over splits. By (2) a split is three sums, whatever its size, so
scores are computed without keeping probabilities, and parts of a split can be merged.

Splits are ADM's: 5,000 images in a row each, the last one what is left. torch-fidelity makes ten
of equal size after shuffling; for 50,000 images in random order the two say the same.

Source: Salimans et al. 2016, arXiv:1606.03498; guided-diffusion's evaluator (splits, and logits
without bias).
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

SPLIT = 5_000  # images


@dataclass(eq=False)
class ScoreSums:
    """The sums of equation (2), by split.

    Attributes:
        probabilities: number of a split -> f64 [K], sum of p_i.
        negentropy: number of a split -> sum of sum_c p_ic log p_ic, in nats.
        counts: number of a split -> images.
    """

    probabilities: dict[int, np.ndarray] = field(default_factory=dict)
    negentropy: dict[int, float] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)

    def add(self, numbers: np.ndarray, logits: np.ndarray) -> None:
        """Adds images.

        Args:
            numbers: int [n], place of each image among all: it decides the split.
            logits: float [n, K], n >= 1.
        """
        log_p = log_softmax(logits)
        p = np.exp(log_p)
        splits = np.asarray(numbers) // SPLIT
        for split in np.unique(splits).tolist():
            here = splits == split
            self._add(split, p[here].sum(axis=0), float((p * log_p)[here].sum()), int(here.sum()))

    def merge(self, other: Self) -> None:
        """Adds what another one has summed over other images."""
        for split, count in other.counts.items():
            self._add(split, other.probabilities[split], other.negentropy[split], count)

    def score(self) -> float:
        """The mean of equation (2) over the splits: 1 to K.

        Raises:
            ValueError: no images were added.
        """
        if not self.counts:
            raise ValueError("Inception Score of no images; expected at least one.")
        return float(np.mean([self._score(split) for split in self.counts]))

    def _score(self, split: int) -> float:
        count = self.counts[split]
        q = self.probabilities[split] / count
        # A class that no image shows adds nothing: q log q -> 0.
        entropy = -float(np.sum(q * np.log(np.where(q > 0, q, 1.0))))
        return float(np.exp(self.negentropy[split] / count + entropy))

    def _add(self, split: int, probabilities: np.ndarray, negentropy: float, count: int) -> None:
        self.probabilities[split] = self.probabilities.get(split, 0.0) + probabilities
        self.negentropy[split] = self.negentropy.get(split, 0.0) + negentropy
        self.counts[split] = self.counts.get(split, 0) + count


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log probabilities of logits [n, K], in float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
