"""Class accuracy: share of generated images that a classifier reads as their label."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from rae_dit.evaluation.metrics.base import Features, Metric
from rae_dit.multihost.sums import Together


@dataclass(eq=False)
class ClassAccuracy(Metric):
    """Number of images with a label, and of those among them that are classified as it."""

    names = ("class_accuracy",)
    needs = ("classes",)
    lower_is_better = False
    needs_labels = True

    num_correct: int = 0
    num_labeled: int = 0

    def update(self, numbers: np.ndarray, features: Features, labels: np.ndarray | None) -> None:
        """Adds a batch; images without labels do not count."""
        if labels is not None:
            self.num_labeled += len(labels)
            self.num_correct += int(np.sum(features.classes == labels))

    def over_processes(self, together: Together) -> Self:
        """Returns the counts of all processes."""
        counts = together.sum_integers(np.array([self.num_correct, self.num_labeled]))
        return type(self)(self.feature_stride, *counts.tolist())

    def compute(self, reference: Self | None) -> dict[str, float]:
        """Computes the share, in [0, 1]."""
        if not self.num_labeled:
            raise ValueError("class_accuracy: got no labels; expected at least one labeled image")
        return {"class_accuracy": self.num_correct / self.num_labeled}

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns both counts, int64."""
        return {
            "num_correct": np.array(self.num_correct, np.int64),
            "num_labeled": np.array(self.num_labeled, np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Restores the counts from `to_arrays`."""
        names = ("num_correct", "num_labeled")
        return cls(**{name: int(arrays[name]) for name in names})
