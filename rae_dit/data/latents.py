"""Cached latents: a directory of array_record shards, written once and read as a data source.

    latents.json                          what the latents are of, and how they are stored
    latents-00000-of-00157.array_record   records of `images_per_shard` images, in their order

An image has one record, or two where its mirror image was encoded, too. A record holds its label
(int32), the scales of its channels (float32 [D], "fp8" alone) and the latent [h, w, D]. Shards
appear by one rename each, and `latents.json` says last that all of them are there.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import ml_dtypes
import numpy as np

from rae_dit.architecture import LatentStorage
from rae_dit.data.files import SourceError
from rae_dit.data.sources import checked_index
from rae_dit.data.transforms import Example
from rae_dit.storage.errors import StorageError, storage_failure
from rae_dit.storage.files import write_json
from rae_dit.storage.places import place

MANIFEST = "latents.json"
DTYPES: dict[LatentStorage, np.dtype] = {
    "fp32": np.dtype(np.float32),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "fp8": np.dtype(ml_dtypes.float8_e4m3fn),
}
LABEL = np.dtype("<i4")
SCALE = np.dtype("<f4")


@dataclass(frozen=True)
class Manifest:
    """The content of latents.json.

    Attributes:
        provenance: what the latents depend on (setup/latents).
        images: how many.
        shape: (h, w, D) of a latent.
        storage: dtype on disk.
        mirrored: whether each image has a second record, of its mirror image.
        images_per_shard: of all shards but the last.
        num_classes: labels are 0..num_classes-1.
        classes: their names; None if not known.
        complete: whether all shards are there.
    """

    provenance: dict[str, Any]
    images: int
    shape: tuple[int, int, int]
    storage: LatentStorage
    mirrored: bool
    images_per_shard: int
    num_classes: int
    classes: tuple[str, ...] | None = None
    complete: bool = False

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Reads the manifest of a directory.

        Raises:
            SourceError: there is none, or it is damaged.
        """
        expected = "a directory that --mode=latents has written, such as WORKDIR/latents/train"
        path = directory / MANIFEST
        if not path.is_file():
            raise SourceError(f"got {str(directory)!r}, without {MANIFEST}; expected {expected}")
        try:
            values = json.loads(path.read_text())
            values["shape"] = tuple(values["shape"])
            values["classes"] = None if values["classes"] is None else tuple(values["classes"])
            found = cls(**values)
            if len(found.shape) != 3 or found.storage not in DTYPES or found.images_per_shard < 1:
                raise ValueError("impossible values")
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise SourceError(
                f"got {str(directory)!r}, whose {MANIFEST} is damaged ({reason}); "
                f"expected {expected}"
            ) from error
        return found

    def write(self, directory: Path) -> None:
        """Writes the manifest, atomically."""
        write_json(directory / MANIFEST, asdict(self))

    @property
    def records_per_image(self) -> int:
        """Number of records of an image: itself, and its mirror image."""
        return 2 if self.mirrored else 1

    @property
    def record_bytes(self) -> int:
        """Size of a record."""
        scales = self.shape[-1] * SCALE.itemsize if self.storage == "fp8" else 0
        values = int(np.prod(self.shape)) * DTYPES[self.storage].itemsize
        return LABEL.itemsize + scales + values

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.images // self.images_per_shard)

    def shard_name(self, shard: int) -> str:
        """Returns the file name of a shard."""
        return f"latents-{shard:05d}-of-{self.num_shards:05d}.array_record"

    def images_of(self, shard: int) -> range:
        """Returns the images of a shard."""
        first = shard * self.images_per_shard
        return range(first, min(first + self.images_per_shard, self.images))

    def missing(self, directory: Path) -> list[int]:
        """Lists the shards that are not there."""
        there = {path.name for path in directory.iterdir()}
        return [n for n in range(self.num_shards) if self.shard_name(n) not in there]


@dataclass(frozen=True, eq=False)
class StoredLatents:
    """The reader of `open_latents`.

    Attributes:
        directory: of the shards.
        manifest: what they are.
        records: of all shards, one after the other.
    """

    directory: Path
    manifest: Manifest
    records: Any

    @property
    def fingerprint(self) -> str:
        """Hash of what the latents are of and how they are stored; not of their directory."""
        manifest = self.manifest
        said = [manifest.provenance, manifest.images, manifest.storage, manifest.mirrored]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        return f"latents/{digest[:12]}"

    @property
    def num_classes(self) -> int:
        """Number of labels; labels are 0..num_classes-1."""
        return self.manifest.num_classes

    def __len__(self) -> int:
        return self.manifest.images

    def __getitem__(self, index: int, /) -> Any:
        """Returns `read(index)`: no `Record` of pixels, and for `pipeline` alone."""
        return self.read(index)

    def read(self, index: int, *, mirrored: bool = False) -> Example:
        """Reads the latent of an image.

        Args:
            index: number of the image.
            mirrored: take that of its mirror image, which the manifest must have.

        Returns:
            {"latent": [h,w,D] of the stored dtype, "label": int32 []}, and for "fp8"
            "scale": float32 [D].

        Raises:
            SourceError: the record is damaged.
        """
        manifest, index = self.manifest, checked_index(index, len(self))
        try:
            content = self.records[index * manifest.records_per_image + mirrored]
        except Exception as error:  # of array_record
            if failure := storage_failure(error):
                raise StorageError(f"{self.directory}: {failure}") from error
            raise self._damaged(index, " ".join(str(error).split())) from error
        if len(content) != manifest.record_bytes:
            raise self._damaged(index, f"{len(content)} bytes for {manifest.record_bytes}")
        label = int(np.frombuffer(content, LABEL, 1)[0])
        if not 0 <= label < manifest.num_classes:
            raise self._damaged(index, f"label {label}")
        example: Example = {"label": np.int32(label)}
        start = LABEL.itemsize
        if manifest.storage == "fp8":
            example["scale"] = np.frombuffer(content, SCALE, manifest.shape[-1], start)
            start += example["scale"].nbytes
        values = np.frombuffer(content, DTYPES[manifest.storage], offset=start)
        return example | {"latent": values.reshape(manifest.shape)}

    def _damaged(self, index: int, reason: str) -> SourceError:
        name = self.manifest.shard_name(index // self.manifest.images_per_shard)
        return SourceError(
            f"{self.directory / name}: the latent of image {index} is damaged ({reason}); expected "
            "what --mode=latents wrote; delete this file and run that again, which makes it anew"
        )


def checksum_here(path: str) -> str:
    """Hash of latents.json and of the names of the missing shards as this host sees them.

    Returns:
        The hash, or why there is none: hosts are compared by it.
    """
    directory = place(path)
    try:
        manifest = Manifest.read(directory)
        said = [asdict(manifest), manifest.missing(directory)]
    except (OSError, SourceError) as error:
        return " ".join(str(error).split())
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def open_latents(path: str, num_classes: int) -> StoredLatents:
    """Opens a directory of --mode=latents.

    Raises:
        SourceError: it is none, unfinished, of other classes, or a shard is missing.
    """
    directory = place(path)
    manifest = Manifest.read(directory)
    missing = manifest.missing(directory)
    if missing or not manifest.complete:
        lost = f"{len(missing)} of {manifest.num_shards} shards are missing"
        raise SourceError(
            f"got {path!r}, which is not finished ({lost}); expected all of them: run the command "
            "of --mode=latents again, which goes on where it stopped"
        )
    if manifest.num_classes != num_classes:
        raise SourceError(
            f"got {path!r} of {manifest.num_classes} classes; expected data.num_classes = "
            f"{num_classes} of them"
        )
    # Late: it is slow to import, and other sources do not need it.
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    # With its number of records, a shard is opened when it is first read.
    shards = [
        f"{directory / manifest.shard_name(n)}"
        f"[0:{len(manifest.images_of(n)) * manifest.records_per_image}]"
        for n in range(manifest.num_shards)
    ]
    return StoredLatents(directory, manifest, ArrayRecordDataSource(shards))
