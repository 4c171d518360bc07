"""Sources of encoded images: the protocol of readers, and `Images`, which decodes them.

A reader (folder, huggingface, tfds, tar) returns bytes and label of record i. `Images` decodes and
crops them, and replaces records that cannot be read.
"""

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np
from PIL import Image

from rae_dit.data.images import (
    BadImageError,
    adm_center_crop,
    decode,
    random_crop,
    random_resized_crop,
)
from rae_dit.data.sources import Record, checked_index
from rae_dit.storage.places import is_url, place

Crop = Literal["adm_center", "random", "random_resized"]

# This many unreadable records in a row mean a lost disk, not a damaged file.
_ATTEMPTS = 16


class SourceError(ValueError):
    """A path that does not hold the expected files; the message says what it holds."""


class UnreadableError(SourceError, OSError):
    """So many records in a row cannot be read that the disk or the path is to blame."""


@dataclass(frozen=True)
class Listing:
    """What a reader found at its path, without reading an image.

    Attributes:
        files: number of files that hold the records.
        classes: their names in the order of the labels; None if nothing there tells them.
        labels: the lowest and the highest label; None if only all records together tell.
        remarks: what was left out or read in a way that one might not expect, a phrase each.
        sizes: path and bytes of the files whose insides were listed, or of some of very many; for
            other hosts, which read them by what this one found.
        before: the fingerprint that an earlier version of this program gave, and what it did not
            read; None if it is the same.
    """

    files: int
    classes: tuple[str, ...] | None = None
    labels: tuple[int, int] | None = None
    remarks: tuple[str, ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()
    before: tuple[str, str] | None = None


def sizes_of(paths: Iterable[str | Path]) -> tuple[tuple[str, int], ...]:
    """Returns `Listing.sizes` of files; of none in a bucket, which is the same for all hosts."""
    files = [path for path in paths if not is_url(path)]
    return tuple((str(path), place(path).stat().st_size) for path in files)


def changed_here(listing: Listing) -> str:
    """Describes the first file that is another one than the listing's on this host; '' if none."""
    for path, size in listing.sizes:
        try:
            found = f"{place(path).stat().st_size:,} bytes"
        except OSError as error:
            found = error.strerror or str(error)
        if found != (expected := f"{size:,} bytes"):
            return (
                f"got {path!r} with {found} on host {socket.gethostname()}; expected {expected}, "
                "as on process 0, which lists the files for all; give all hosts the same files"
            )
    return ""


class Files(Protocol):
    """Protocol of readers: numbered image files, thread-safe and picklable."""

    @property
    def listing(self) -> Listing:
        """What was found when it was opened."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the records and their order, independent of their directory."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[bytes, int]:
        """Returns content and label of a file; OSError if they cannot be read."""
        ...

    def name(self, index: int) -> str:
        """Returns the location of the file, for messages."""
        ...


class ImageRecord(Record):
    """A record of `Images`; `replaced`: True if a damaged record was substituted."""

    replaced: bool


@dataclass(frozen=True, eq=False)
class Images:
    """A `Source` of the images in files.

    A file that cannot be decoded is replaced by another record with its label; the choice depends
    on the index only, so the stream is deterministic. The pipeline counts replacements.

    Attributes:
        files: the reader.
        image_size: side of the images in pixels.
        num_classes: labels are 0..num_classes-1.
        crop: "adm_center", or another place ("random"), and size and shape ("random_resized"), in
            every epoch of `train_batches`. An ordered pass, and `images[i]`, take the center.
        max_bad_share: share of damaged files above which `pipeline` stops, 0..1.
    """

    files: Files
    image_size: int
    num_classes: int
    crop: Crop
    max_bad_share: float

    @property
    def fingerprint(self) -> str:
        """Hash of the files, and the crop."""
        return self.identity(self.files.fingerprint)

    def identity(self, files: str) -> str:
        """Returns the fingerprint of these settings with another fingerprint of files."""
        return f"{files}/{self.image_size}/{self.crop}"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> ImageRecord:
        return self._record(index, lambda image: adm_center_crop(image, self.image_size))

    def randomly_cropped(self, index: int, rng: np.random.Generator) -> ImageRecord:
        """Returns record `index` with a random crop drawn from `rng`."""
        crop = random_resized_crop if self.crop == "random_resized" else random_crop
        return self._record(index, lambda image: crop(image, self.image_size, rng))

    def name(self, index: int) -> str:
        """Returns the location of record `index`, for messages."""
        return self.files.name(index)

    def damage(self, index: int) -> str:
        """Describes why record `index` cannot be decoded, by decoding it again."""
        try:
            decode(self.files.read(index)[0])
        except (OSError, BadImageError) as error:
            return " ".join(str(error).split())
        return "a second look succeeded"

    def _record(self, index: int, crop: Callable[[Image.Image], np.ndarray]) -> ImageRecord:
        index = checked_index(index, len(self))
        for attempt in range(_ATTEMPTS):
            current = _substitute(index, attempt, len(self))
            try:
                content, label = self.files.read(current)
                image = decode(content)
            except (OSError, BadImageError):
                continue
            if not 0 <= label < self.num_classes:
                raise SourceError(
                    f"{self.name(current)}: got label {label}; expected 0..{self.num_classes - 1}. "
                    "Correct data.num_classes, or choose files of a labeled split."
                )
            return {"image": crop(image), "label": label, "replaced": attempt > 0}
        raise UnreadableError(
            f"none of {_ATTEMPTS} files can be read as an image, the first being "
            f"{self.name(index)}: {self.damage(index)}; expected at most a few damaged ones. "
            "Check that the disk is there and holds images."
        )


def _substitute(index: int, attempt: int, length: int) -> int:
    """Chooses the record after `attempt` failures: itself first, then hashed indices."""
    if attempt == 0:
        return index
    # splitmix64: neighbors in a broken shard are often broken too, so go far away.
    mask = 2**64 - 1
    mixed = (index * 0x9E3779B97F4A7C15 + attempt * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
    return (mixed ^ (mixed >> 31)) % length


class PackedStrings:
    """Many short byte strings in two buffers: compact and fast to pickle for workers."""

    def __init__(self, values: list[bytes]) -> None:
        self._joined = b"".join(values)
        self._ends = np.cumsum([0, *map(len, values)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns the arguments of `from_arrays`."""
        return {"joined": np.frombuffer(self._joined, np.uint8), "ends": self._ends}

    @classmethod
    def from_arrays(cls, joined: np.ndarray, ends: np.ndarray) -> Self:
        """Restores strings from all their bytes, uint8, and int64 [strings + 1] ends.

        Raises:
            ValueError: these are no ends of those bytes.
        """
        if ends.ndim != 1 or not len(ends) or ends[0] != 0 or ends[-1] != len(joined):
            raise ValueError(f"got ends of shape {ends.shape} for {len(joined)} bytes")
        if np.any(np.diff(ends) < 0):
            raise ValueError("got ends that decrease")
        found = cls([])
        found._joined, found._ends = joined.tobytes(), ends
        return found

    def __getitem__(self, index: int) -> bytes:
        return self._joined[self._ends[index] : self._ends[index + 1]]
