"""Order of a training stream by groups, for files that are read in groups of records.

The images of a Parquet file lie in row groups of about 100, and one image costs its whole group.
Shuffled record by record, 100 images are read for each. Here the groups are shuffled, and then the
rows within a window of consecutive groups:

    epoch:   groups in random order, cut into windows that hold the rows of about 4 batches
    window:  its rows in random order, dealt out to batches
    batch:   its rows sorted by group, so that each group is read once

A batch therefore takes a quarter of each group of its window: a group of 100 rows is read for 25
images. The sorting is by place in the batch alone, which no objective looks at, and it gives a
process that reads a part of every batch a part of the groups.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from rae_dit.data.files import Images
from rae_dit.data.lru_cache import LRUCache
from rae_dit.data.sources import Source

BATCHES_PER_WINDOW = 4
# Of small batches, which would otherwise come from one or two groups.
LEAST_GROUPS_PER_WINDOW = 8


@runtime_checkable
class InGroups(Protocol):
    """Protocol of readers whose records may lie in groups that are read as a whole."""

    @property
    def group_starts(self) -> np.ndarray | None:
        """First record of each group, then their number, int64 [G + 1]; None: no groups."""
        ...


def group_starts(source: Source) -> np.ndarray | None:
    """Returns the first record of each group of a source, then of all; None: it has no groups."""
    if isinstance(source, Images) and isinstance(source.files, InGroups):
        return source.files.group_starts
    return None


class Epoch(NamedTuple):
    """The groups of an epoch in their order.

    Attributes:
        groups: int64 [G], a permutation.
        windows: int64 [W + 1], place in `groups` of each window's first group, then G.
        starts: int64 [W + 1], row of the epoch at which each window starts, then their number.
    """

    groups: np.ndarray
    windows: np.ndarray
    starts: np.ndarray


@dataclass(frozen=True, eq=False)
class GroupOrder:
    """The record at each place of an endless stream; a function of its settings alone.

    Every epoch holds every record once, in an order of its own.

    Attributes:
        first: int64 [G + 1], number of the first record of each group, then of all records.
        batch_size: rows of a batch over all processes.
        seed: not negative.
    """

    first: np.ndarray
    batch_size: int
    seed: int
    _epochs: LRUCache[Epoch] = field(default_factory=lambda: LRUCache(2))
    _windows: LRUCache[np.ndarray] = field(default_factory=lambda: LRUCache(4))

    def __call__(self, place: int) -> int:
        """Returns the record at a place of the stream, counted over all epochs from 0."""
        number, row = divmod(place, int(self.first[-1]))
        epoch = self._epochs.get(number, lambda: self._epoch(number))
        window = int(np.searchsorted(epoch.starts, row, side="right")) - 1
        records = self._windows.get((number, window), lambda: self._window(number, window))
        return int(records[row - epoch.starts[window]])

    def _epoch(self, number: int) -> Epoch:
        sizes = np.diff(self.first)
        groups = _permutation(len(sizes), self.seed, number)
        rows = BATCHES_PER_WINDOW * self.batch_size
        wanted = max(LEAST_GROUPS_PER_WINDOW, round(rows * len(sizes) / int(self.first[-1])))
        count = max(1, round(len(sizes) / wanted))
        windows = np.arange(count + 1, dtype=np.int64) * len(sizes) // count
        starts = np.cumsum([0, *sizes[groups]], dtype=np.int64)[windows]
        return Epoch(groups, windows, starts)

    def _window(self, number: int, window: int) -> np.ndarray:
        """Returns the records of a window in their order, int64 [rows]."""
        epoch = self._epochs.get(number, lambda: self._epoch(number))
        groups = epoch.groups[epoch.windows[window] : epoch.windows[window + 1]]
        spans = [np.arange(self.first[group], self.first[group + 1]) for group in groups]
        records = np.concatenate(spans)
        # From 1 on: numpy takes a seed that ends in 0 for the one without, here the epoch's.
        rows = _permutation(len(records), self.seed, number, window + 1)
        start = number * int(self.first[-1]) + int(epoch.starts[window])
        batch = (start + np.arange(len(rows))) // self.batch_size
        return records[rows[np.lexsort((rows, batch))]]


def _permutation(length: int, *entropy: int) -> np.ndarray:
    """Draws a permutation, int64 [length], the same on every machine and in every version."""
    # Raw bits of PCG64 are promised never to change; `Generator.permutation` is not.
    ticket = np.random.PCG64(entropy).random_raw(length)
    return np.argsort(ticket, kind="stable")
