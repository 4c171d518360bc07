"""Mergeable state of several metrics over one set of images."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self, TypeVar

import jax
import numpy as np

from rae_dit.evaluation.metrics import metrics_named
from rae_dit.evaluation.metrics.base import Features, Metric
from rae_dit.multihost.sums import SumOverDevices, Together

M = TypeVar("M", bound=Metric)


@dataclass(eq=False)
class MetricState:
    """The sums of some metrics; they grow batch by batch, merge, and travel as arrays.

    Attributes:
        metrics: of each kind, its sums.
        num_images: added so far.
    """

    metrics: dict[type[Metric], Metric] = field(default_factory=dict)
    num_images: int = 0

    @classmethod
    def of(cls, kinds: Iterable[type[Metric]], *, feature_stride: int = 1) -> Self:
        """Makes the state of no images.

        Args:
            kinds: the metrics.
            feature_stride: see `Metric`.
        """
        return cls({kind: kind(feature_stride) for kind in kinds})

    def __getitem__(self, kind: type[M]) -> M:
        """Returns the sums of one metric."""
        found = self.metrics[kind]
        assert isinstance(found, kind)
        return found

    def update(self, numbers: np.ndarray, features: Features, labels: np.ndarray | None) -> None:
        """Adds a batch.

        Args:
            numbers: int [n], place of each image in the whole set, over all processes.
            features: of the n images.
            labels: int [n], the class each image should show; None if unknown.

        Raises:
            ValueError: the extractor does not compute features that a metric needs.
        """
        self.num_images += len(numbers)
        for kind, metric in self.metrics.items():
            for need in kind.needs:
                if getattr(features, need) is None:
                    raise ValueError(f"{kind.names[0]}: got no {need} features of the images")
            metric.update(numbers, features, labels)

    def compute(self, names: tuple[str, ...], reference: Self | None) -> dict[str, float]:
        """Computes metrics of these images against a reference, in the order of `names`.

        Raises:
            ValueError: there is no reference for a metric that compares, or too few images.
        """
        found: dict[str, float] = {}
        for kind in metrics_named(names):
            real = None if reference is None else reference.metrics.get(kind)
            if kind.compares and real is None:
                raise ValueError(f"{kind.names[0]}: got no reference; expected one to compare with")
            found |= self.metrics[kind].compute(real)
        return {name: found[name] for name in names}

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns all sums as arrays: for a file, or for another process. Float64 stays float64."""
        arrays = {"num_images": np.array(self.num_images, np.int64)}
        if not self.num_images:  # a process without a share of the images
            return arrays
        for kind, metric in self.metrics.items():
            own = metric.to_arrays()
            if twice := arrays.keys() & own.keys():
                raise ValueError(f"{kind.names[0]}: got arrays {sorted(twice)} of another metric")
            arrays |= own
        return arrays

    @classmethod
    def from_arrays(cls, kinds: Iterable[type[Metric]], arrays: Mapping[str, np.ndarray]) -> Self:
        """Restores a state of some of its metrics from `to_arrays`.

        Raises:
            KeyError: the sums of one of the metrics are missing.
        """
        arrays = with_current_names(arrays)
        if not arrays["num_images"]:
            return cls.of(kinds)
        found = {kind: kind.from_arrays(arrays) for kind in kinds}
        return cls(found, int(arrays["num_images"]))

    def to_bytes(self) -> bytes:
        """Returns `to_arrays` as the bytes of an .npz."""
        buffer = io.BytesIO()
        np.savez(buffer, **self.to_arrays())  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, kinds: Iterable[type[Metric]], content: bytes) -> Self:
        """Restores a state from `to_bytes`; raises as `from_arrays`, or for a damaged .npz."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return cls.from_arrays(kinds, arrays)


def with_current_names(arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Returns arrays of a cached reference; until November 2026 one array held all counts."""
    if "counts" not in arrays:
        return arrays
    names = ("feature_stride", "num_images", "num_correct", "num_labeled")
    return dict(arrays) | dict(zip(names, arrays["counts"], strict=True))


def merge_processes(state: MetricState) -> MetricState:
    """Adds up the states of all processes; features that a metric keeps are on process 0 alone."""
    return state if jax.process_count() == 1 else over_processes(state, SumOverDevices())


def over_processes(state: MetricState, together: Together) -> MetricState:
    """Adds up the states of all processes, which have the same metrics."""
    metrics = {kind: metric.over_processes(together) for kind, metric in state.metrics.items()}
    return MetricState(metrics, int(together.sum_integers(np.array(state.num_images))))
