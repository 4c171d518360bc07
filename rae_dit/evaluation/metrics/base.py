"""Interface of a metric: what it needs, and the sums it is computed from."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np

from rae_dit.multihost.sums import Together


class Features(NamedTuple):
    """Features of a batch of images; None for those an extractor does not compute.

    Attributes:
        pool: float [n, d], compared by Fréchet distance, precision and recall.
        spatial: float [n, s], compared by sFID.
        logits: float [n, K], the classifier's, for the Inception Score.
        classes: int [n], the class predicted for each image.
    """

    pool: np.ndarray
    spatial: np.ndarray | None = None
    logits: np.ndarray | None = None
    classes: np.ndarray | None = None


@dataclass(eq=False)
class Metric(abc.ABC):
    """One metric; an instance holds the sums over one set of images.

    Sums grow batch by batch, add up over processes, and are stored as arrays.

    Attributes:
        names: of the values it computes, as in `evaluate.metrics`.
        needs: fields of `Features` that it reads.
        lower_is_better: direction of its values.
        compares: whether it compares with a reference.
        needs_labels: whether images must have labels.
        min_images: fewest images that it can be computed of.
        stored_as: sets of arrays of an ADM-style reference file, any of which stands for the sums
            of the real images (`from_reference`); the best first.
        feature_stride: which images' features are kept, by a metric that keeps any: those whose
            number it divides.
    """

    names: ClassVar[tuple[str, ...]]
    needs: ClassVar[tuple[str, ...]]
    lower_is_better: ClassVar[bool]
    compares: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    min_images: ClassVar[int] = 2
    stored_as: ClassVar[tuple[tuple[str, ...], ...]] = ()

    feature_stride: int = 1

    @abc.abstractmethod
    def update(self, numbers: np.ndarray, features: Features, labels: np.ndarray | None) -> None:
        """Adds a batch.

        Args:
            numbers: int [n], place of each image in the whole set, over all processes.
            features: of the n images; has the fields that the metric needs.
            labels: int [n], the class each image should show; None if unknown.
        """

    @abc.abstractmethod
    def over_processes(self, together: Together) -> Self:
        """Returns the sums over the images of all processes; every process calls it.

        A metric that keeps features has them on process 0 alone.

        Args:
            together: adds up arrays of the processes. A process may have no image, and so not know
                the shape of an array.
        """

    @abc.abstractmethod
    def compute(self, reference: Self | None) -> dict[str, float]:
        """Computes the values, by name.

        Args:
            reference: sums over the real images; None for a metric that does not compare.

        Raises:
            ValueError: there are too few images.
        """

    @abc.abstractmethod
    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns the sums as arrays, for a file or another process; no other metric's names."""

    @classmethod
    @abc.abstractmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Restores the sums from `to_arrays`.

        Raises:
            KeyError: an array is missing.
        """

    @classmethod
    def from_reference(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Takes the sums from a reference file that holds one of the sets in `stored_as`.

        Raises:
            ValueError: the arrays are not what their names say.
        """
        raise NotImplementedError(f"{cls.__name__} is not stored in reference files")
