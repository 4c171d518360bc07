"""Counts and limits damaged images; batches carry the index of each in a column "replaced"."""

import logging
from dataclasses import dataclass

import numpy as np

from rae_dit.data.files import ImageRecord, Images
from rae_dit.data.transforms import Example, Prepare

log = logging.getLogger(__name__)

_NONE = -1


class BadShareError(ValueError):
    """The share of damaged images is above data.max_bad_share."""


@dataclass(frozen=True)
class PrepareImage:
    """`Prepare` for records of `Images`; adds "replaced", index of a damaged record or -1.

    A substitute keeps a training batch full. In a weighted pass, where every record has its own
    row already, it would count twice: it weighs 0 there, like padding.
    """

    prepare: Prepare

    def __call__(self, numbered: tuple[int, ImageRecord | None]) -> Example:
        """Returns the example, with "replaced": int64 []."""
        index, record = numbered
        replaced = record is not None and record["replaced"]
        example = self.prepare(numbered) | {"replaced": np.int64(index if replaced else _NONE)}
        if replaced and "weight" in example:
            example["weight"] = np.float32(0)
        return example


@dataclass(frozen=True)
class PrepareRandomCrop:
    """`PrepareImage` for record `index` of `source` with a random crop."""

    source: Images
    prepare: PrepareImage

    def __call__(self, index: int, rng: np.random.Generator) -> Example:
        """Returns the example of record `index`."""
        return self.prepare((index, self.source.randomly_cropped(index, rng)))


class Replacements:
    """Counts and logs the damaged images that one process reads.

    Attributes:
        count: rows of batches so far that hold another record than they should.
    """

    def __init__(self, source: Images, *, records: int, process_count: int) -> None:
        """Starts at zero.

        Args:
            source: the records; knows their names and the share allowed.
            records: length of one pass of all processes.
            process_count: processes that share a pass.
        """
        self._source = source
        self._records = records
        self._pass_rows = -(-records // process_count)
        self._rows = 0
        self._damaged: set[int] = set()
        self.count = 0

    def note(self, replaced: np.ndarray) -> None:
        """Counts the column "replaced" of one batch, int64 [B].

        The share is that of damaged files among those that this process has met, counted as one
        pass at least (a damaged file in the first batch is not a bad share) and as all records at
        most (later passes meet the same files).

        Raises:
            BadShareError: the share is now above `source.max_bad_share`.
        """
        bad = [int(index) for index in replaced if index != _NONE]
        self._rows += len(replaced)
        self.count += len(bad)
        for index in bad:
            if index not in self._damaged:
                self._damaged.add(index)
                log.warning(
                    "damaged image, replaced by another record: %s: %s",
                    self._source.name(index),
                    self._source.damage(index),
                )
        met = min(max(self._rows, self._pass_rows), self._records)
        if bad and len(self._damaged) > self._source.max_bad_share * met:
            raise BadShareError(
                f"{len(self._damaged)} of {met} images are damaged, the last being "
                f"{self._source.name(bad[-1])}, a share of {len(self._damaged) / met:.3g}; "
                f"expected at most data.max_bad_share = {self._source.max_bad_share:g}. "
                "Repair the files named in the log, or raise data.max_bad_share."
            )
