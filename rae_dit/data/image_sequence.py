"""`rae_dit.open_images`: any data source as a sequence of (image, label)."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import overload

import numpy as np

from rae_dit.data.files import Images, SourceError
from rae_dit.data.readers import SourceName, Split, describe, open_source
from rae_dit.data.sources import Source

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ImageSequence(Sequence[tuple[np.ndarray, int]]):
    """Images with their labels; each is read and decoded when it is asked for.

    Attributes:
        records: the source.
        numbers: of the records that belong to the sequence, in its order.
    """

    records: Source
    numbers: range

    @property
    def num_classes(self) -> int:
        """The number of classes; labels are 0..num_classes-1."""
        return self.records.num_classes

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        return map(self._read, self.numbers)

    @overload
    def __getitem__(self, index: int) -> tuple[np.ndarray, int]: ...
    @overload
    def __getitem__(self, index: slice) -> "ImageSequence": ...
    def __getitem__(self, index: int | slice) -> "tuple[np.ndarray, int] | ImageSequence":
        if isinstance(index, slice):
            return ImageSequence(self.records, self.numbers[index])
        try:
            number = self.numbers[index]
        except IndexError as error:
            raise IndexError(
                f"index: got {index}; expected one of {len(self)} images, from 0"
            ) from error
        return self._read(number)

    def _read(self, number: int) -> tuple[np.ndarray, int]:
        record = self.records[number]
        if isinstance(self.records, Images) and record.get("replaced"):
            where, reason = self.records.name(number), self.records.damage(number)
            raise OSError(f"{where} cannot be decoded: {reason}")
        return record["image"], record["label"]


def open_images(
    source: SourceName,
    path: str | PathLike[str] = "",
    *,
    num_classes: int,
    image_size: int = 256,
    split: Split = "train",
    numeric_classes: bool = False,
) -> ImageSequence:
    """Opens a data source as a sequence of (image, label). Needs no JAX.

        images = rae_dit.open_images("folder", "imagenet/train", num_classes=1000)
        image, label = images[0]  # uint8 [256, 256, 3] in 0..255, int in 0..999

    The images are those of an ordered pass of training: resized and cropped to a square at the
    center as ADM does it, RGB. `len`, indices, slices and iteration work as in a list; nothing is
    read before it is asked for, so the sequence suits threads and worker processes.

    Args:
        source: `config.data.source`. "folder": one directory of images per class, labels in the
            order of the names; "huggingface": *.parquet or *.arrow files; "tfds": a data set
            prepared by TensorFlow Datasets; "tar": WebDataset shards; "digits": scikit-learn's
            handwritten digits; "synthetic": 1024 drawn images.
        path: a directory or a pattern of files, see docs/data.md; '' for "digits" and "synthetic".
        num_classes: number of labels; 10 for "digits".
        image_size: side of the images in pixels; a multiple of 8 for "digits".
        split: which part, where the source holds several and the path names none ("tfds",
            "digits", "synthetic").
        numeric_classes: of "folder": the directories are named by whole numbers, and sorted as
            such; as strings otherwise.

    Returns:
        A sequence of (uint8 [image_size, image_size, 3], int); its items raise OSError for a file
        that cannot be read or decoded, ValueError for a label outside 0..num_classes-1, and
        IndexError.

    Raises:
        SourceError: a ValueError: an unknown source, a path that does not hold what the source
            expects, or another number of classes.
    """
    path = fspath(path)
    if source in ("digits", "synthetic") and path:
        raise SourceError(f"path: got {path!r}; expected '' because {source!r} reads no files")
    records = open_source(
        source,
        path,
        split=split,
        image_size=image_size,
        num_classes=num_classes,
        crop="adm_center",
        max_bad_share=0.0,
        numeric_classes=numeric_classes,
    )
    if isinstance(records, Images) and records.files.listing.remarks:
        log.warning("%s: %s", path, describe(records))
    if records.num_classes != num_classes:
        raise SourceError(f"num_classes: got {num_classes}; expected {records.num_classes}")
    return ImageSequence(records, range(len(records)))
