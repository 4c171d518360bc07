"""What a set of images amounts to: sums that grow batch by batch, merge, and travel as arrays.

A judge (judges.py) turns a batch of images into `Features`; a `Tally` holds what the metrics need
of them. Moments and scores take the same memory for 50 images as for 50,000; only precision and
recall need the features themselves, as float32 rows, and only where they are asked for.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import jax
import numpy as np

from rae_dit.evaluation.metrics.frechet_distance import Moments, frechet_distance, merge
from rae_dit.evaluation.metrics.inception_score import ScoreSums
from rae_dit.evaluation.metrics.precision_recall import precision_recall
from rae_dit.multihost import allgather_bytes

BUFFERED = 2048  # rows; a merge of moments costs as much as adding some hundred rows


class Features(NamedTuple):
    """What a judge sees in a batch of images; what it does not look at is None.

    Attributes:
        pool: float [n, d], what Fréchet distance, precision and recall compare.
        spatial: float [n, s], what sFID compares.
        logits: float [n, K], what the Inception Score is made of.
        classes: int [n], the class read in each image.
    """

    pool: np.ndarray
    spatial: np.ndarray | None = None
    logits: np.ndarray | None = None
    classes: np.ndarray | None = None


@dataclass(eq=False)
class MomentStream:
    """Moments of features that arrive in batches of any size."""

    merged: Moments | None = None
    waiting: list[np.ndarray] = field(default_factory=list)

    def add(self, features: np.ndarray) -> None:
        """Adds float [n, d] rows."""
        self.waiting.append(features)
        if sum(map(len, self.waiting)) >= BUFFERED:
            self.flush()

    def flush(self) -> None:
        """Takes in the rows that wait."""
        if self.waiting:
            self.take(Moments.of(np.concatenate(self.waiting)))
            self.waiting = []

    def take(self, moments: Moments) -> None:
        """Adds a set of which only the moments are known."""
        self.merged = moments if self.merged is None else merge(self.merged, moments)

    def moments(self) -> Moments:
        """The moments of everything added.

        Raises:
            ValueError: nothing was.
        """
        self.flush()
        if self.merged is None:
            raise ValueError("moments of no features; expected at least one image.")
        return self.merged


@dataclass(eq=False)
class Tally:
    """What the metrics need of a set of images.

    Attributes:
        count: images.
        pool: of `Features.pool`; `spatial` likewise.
        score: sums of the Inception Score.
        rows: kept rows of `Features.pool`, float32.
        read: images with a label; `right`: those in which the judge reads it.
        keep: which images' rows to keep, by number: those that it divides; 0 keeps none.
    """

    keep: int = 0
    count: int = 0
    right: int = 0
    read: int = 0
    pool: MomentStream = field(default_factory=MomentStream)
    spatial: MomentStream = field(default_factory=MomentStream)
    score: ScoreSums = field(default_factory=ScoreSums)
    rows: list[np.ndarray] = field(default_factory=list)

    def add(self, numbers: np.ndarray, features: Features, labels: np.ndarray | None) -> None:
        """Adds a batch.

        Args:
            numbers: int [n], place of each image among all of the set, in any process.
            features: of the n images.
            labels: int [n], what they should show; None where nobody says.
        """
        self.count += len(numbers)
        self.pool.add(features.pool)
        if features.spatial is not None:
            self.spatial.add(features.spatial)
        if features.logits is not None:
            self.score.add(numbers, features.logits)
        if self.keep:
            self.rows.append(features.pool[numbers % self.keep == 0].astype(np.float32))
        if features.classes is not None and labels is not None:
            self.read += len(labels)
            self.right += int(np.sum(features.classes == labels))

    def merge(self, other: Self) -> None:
        """Adds what another process has added."""
        self.count += other.count
        self.right += other.right
        self.read += other.read
        self.rows += other.rows
        self.score.merge(other.score)
        for mine, theirs in ((self.pool, other.pool), (self.spatial, other.spatial)):
            theirs.flush()
            if theirs.merged is not None:
                mine.take(theirs.merged)

    def features(self) -> np.ndarray:
        """The kept rows, f32 [n, d].

        Raises:
            ValueError: there are none.
        """
        if not self.rows:
            raise ValueError("no features were kept; precision and recall need them.")
        return np.concatenate(self.rows)


def to_arrays(tally: Tally) -> dict[str, np.ndarray]:
    """A tally as arrays: for a file, or for another process. Float64 stays float64."""
    counts = [tally.keep, tally.count, tally.right, tally.read]
    arrays = {"counts": np.array(counts, np.int64)}
    for name, stream in (("pool", tally.pool), ("spatial", tally.spatial)):
        stream.flush()
        if stream.merged is not None:
            arrays[f"{name}_mean"] = stream.merged.mean
            arrays[f"{name}_covariance"] = stream.merged.covariance
            arrays[f"{name}_count"] = np.array(stream.merged.count, np.int64)
    if tally.rows:
        arrays["rows"] = tally.features()
    if tally.score.counts:
        splits = list(tally.score.counts)
        arrays["split"] = np.array(splits, np.int64)
        arrays["split_count"] = np.array([tally.score.counts[s] for s in splits], np.int64)
        arrays["split_negentropy"] = np.array([tally.score.negentropy[s] for s in splits])
        arrays["split_probabilities"] = np.stack([tally.score.probabilities[s] for s in splits])
    return arrays


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Tally:
    """The inverse of `to_arrays`."""
    keep, count, right, read = arrays["counts"].tolist()
    tally = Tally(keep, count, right, read)
    for name, stream in (("pool", tally.pool), ("spatial", tally.spatial)):
        if f"{name}_mean" in arrays:
            mean, covariance, count = (
                arrays[f"{name}_{part}"] for part in ("mean", "covariance", "count")
            )
            stream.take(Moments(mean, covariance, int(count)))
    if "rows" in arrays:
        tally.rows = [arrays["rows"]]
    if "split" in arrays:
        splits = arrays["split"].tolist()
        columns = ("probabilities", "negentropy", "count")
        found = (arrays[f"split_{column}"] for column in columns)
        for split, p, negentropy, count in zip(splits, *found, strict=True):
            tally.score.merge(
                ScoreSums({split: p}, {split: float(negentropy)}, {split: int(count)})
            )
    return tally


def metric_values(
    metrics: tuple[str, ...], generated: Tally, reference: Tally | None
) -> dict[str, float]:
    """The metrics of a set of images against a reference, in the order asked for.

    Raises:
        ValueError: one of the two lacks what a metric needs.
    """
    found: dict[str, float] = {}
    both = {"precision", "recall"} & set(metrics)
    if both:
        pair = precision_recall(_given(reference).features(), generated.features())
        found = dict(zip(("precision", "recall"), pair, strict=True))
    single: dict[str, Callable[[], float]] = {
        "fid": lambda: _distance(generated.pool, _given(reference).pool),
        "frechet": lambda: _distance(generated.pool, _given(reference).pool),
        "sfid": lambda: _distance(generated.spatial, _given(reference).spatial),
        "inception_score": generated.score.score,
        "class_accuracy": lambda: generated.right / generated.read,
    }
    return {name: found[name] if name in found else single[name]() for name in metrics}


def _given(reference: Tally | None) -> Tally:
    if reference is None:
        raise ValueError("this metric compares with a reference, and there is none.")
    return reference


def _distance(ours: MomentStream, theirs: MomentStream) -> float:
    return frechet_distance(theirs.moments(), ours.moments())


def merge_processes(tally: Tally) -> Tally:
    """The tally of all processes' images, on every process."""
    if jax.process_count() == 1:
        return tally
    whole = Tally(tally.keep)
    for part in allgather_bytes(to_bytes(tally)):
        whole.merge(from_bytes(part))
    return whole


def to_bytes(tally: Tally) -> bytes:
    """A tally as the bytes of an .npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **to_arrays(tally))  # type: ignore[arg-type]
    return buffer.getvalue()


def from_bytes(content: bytes) -> Tally:
    """The inverse of `to_bytes`."""
    with np.load(io.BytesIO(content)) as arrays:
        return from_arrays(arrays)
