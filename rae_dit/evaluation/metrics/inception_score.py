r"""Inception Score: each image should show one class, all images together many.

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

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from rae_dit.evaluation.metrics.base import Features, Metric
from rae_dit.multihost.sums import Together

SPLIT = 5_000  # images


@dataclass(eq=False)
class InceptionScore(Metric):
    """The sums of equation (2), by split.

    Attributes:
        probabilities: number of a split -> f64 [K], sum of p_i.
        negentropy: number of a split -> sum of sum_c p_ic log p_ic, in nats.
        counts: number of a split -> images.
    """

    names = ("inception_score",)
    needs = ("logits",)
    lower_is_better = False

    probabilities: dict[int, np.ndarray] = field(default_factory=dict)
    negentropy: dict[int, float] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)

    def update(self, numbers: np.ndarray, features: Features, labels: np.ndarray | None) -> None:
        """Adds a batch; the number of an image decides its split."""
        assert features.logits is not None
        log_p = log_softmax(features.logits)
        p = np.exp(log_p)
        splits = np.asarray(numbers) // SPLIT
        for split in np.unique(splits).tolist():
            here = splits == split
            self._add(split, p[here].sum(axis=0), float((p * log_p)[here].sum()), int(here.sum()))

    def over_processes(self, together: Together) -> Self:
        """Returns the sums of all processes, which may share a split."""
        classes = together.largest(max(map(len, self.probabilities.values()), default=0))
        splits = range(together.largest(max(self.counts, default=-1)) + 1)
        none = np.zeros(classes)
        counts = together.sum_integers(np.array([self.counts.get(s, 0) for s in splits], np.int64))
        negentropy = together.sum_floats(np.array([self.negentropy.get(s, 0.0) for s in splits]))
        rows = np.array([self.probabilities.get(s, none) for s in splits])
        probabilities = together.sum_floats(rows.reshape(len(splits), classes))
        found = [s for s in splits if counts[s]]
        return type(self)(
            self.feature_stride,
            {s: probabilities[s] for s in found},
            {s: float(negentropy[s]) for s in found},
            {s: int(counts[s]) for s in found},
        )

    def compute(self, reference: Self | None = None) -> dict[str, float]:
        """Computes the mean of equation (2) over the splits: 1 to K.

        Raises:
            ValueError: no images were added.
        """
        if not self.counts:
            raise ValueError("inception_score: got no images; expected at least one")
        scores = [self._score(split) for split in self.counts]
        return {"inception_score": float(np.mean(scores))}

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns the sums, a row for each split."""
        splits = list(self.counts)
        return {
            "split": np.array(splits, np.int64),
            "split_count": np.array([self.counts[s] for s in splits], np.int64),
            "split_negentropy": np.array([self.negentropy[s] for s in splits]),
            "split_probabilities": np.array([self.probabilities[s] for s in splits]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Restores the sums from `to_arrays`."""
        splits = arrays["split"].tolist()
        return cls(
            probabilities=dict(zip(splits, arrays["split_probabilities"], strict=True)),
            negentropy=dict(zip(splits, arrays["split_negentropy"].tolist(), strict=True)),
            counts=dict(zip(splits, arrays["split_count"].tolist(), strict=True)),
        )

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
    """Returns log probabilities of logits [n, K], in float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
