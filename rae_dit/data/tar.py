"""Reader of WebDataset tar shards: members KEY.jpg and KEY.cls are one record."""

import hashlib
import logging
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rae_dit.data.files import PackedStrings, SourceError
from rae_dit.data.shards import find_shards

log = logging.getLogger(__name__)

_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp")
_LABEL = "cls"


@dataclass(frozen=True, eq=False)
class Tar:
    """The reader of `open_tar`: stores the offset of every image and reads bytes in place.

    Attributes:
        shards: the tar files.
        keys: of all records, "DIRECTORY/NAME" within their tar.
        table: int64 [records, 4]: shard, offset and size in bytes, label.
        fingerprint: hash of names, places and labels.
    """

    shards: tuple[Path, ...]
    keys: PackedStrings
    table: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.table)

    def read(self, index: int) -> tuple[bytes, int]:
        """See `Files`."""
        shard, offset, size, label = self.table[index].tolist()
        with self.shards[shard].open("rb") as file:
            file.seek(offset)
            return file.read(size), label

    def name(self, index: int) -> str:
        """See `Files`."""
        return f"{self.shards[self.table[index, 0]]}: {self.keys[index].decode()}"


def open_tar(path: str) -> Tar:
    """Lists the members of all shards, in one pass over their headers; nothing is written.

    Everything from the first dot of a member's file name on is its kind, the rest its key. A
    record is a key with an image (jpg, jpeg, png, webp, bmp) and "cls", an integer as text; other
    members are passed over.

    Args:
        path: a directory of *.tar, a pattern such as "DIRECTORY/train-*.tar", or one file.

    Returns:
        The reader, records in the order of shards and members.

    Raises:
        SourceError: there are no shards, one is cut off or compressed, or a record lacks its
            image or label.
    """
    shards = find_shards(path, (".tar",))
    keys: list[bytes] = []
    rows: list[tuple[int, int, int, int]] = []
    digest = hashlib.sha256()
    for number, shard in enumerate(shards):
        for key, offset, size, label in _records(shard):
            keys.append(key.encode())
            rows.append((number, offset, size, label))
        if number % 100 == 99:
            log.info("listing %s: %d images in %d shards so far", path, len(rows), number + 1)
        digest.update(f"{shard.name} {shard.stat().st_size} ".encode())
    table = np.array(rows, np.int64)
    digest.update(b"\0".join(keys))
    digest.update(table.astype("<i8").tobytes())
    fingerprint = f"tar/{len(rows)}/{digest.hexdigest()[:12]}"
    return Tar(shards=tuple(shards), keys=PackedStrings(keys), table=table, fingerprint=fingerprint)


def _records(shard: Path) -> list[tuple[str, int, int, int]]:
    """Lists (key, offset, size, label) of one shard's records, in the order of the images."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    kinds: set[str] = set()
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                folder, _, file = member.name.rpartition("/")
                stem, _, kind = file.partition(".")
                key, kind = f"{folder}/{stem}" if folder else stem, kind.lower()
                if not member.isfile() or not stem:
                    continue
                kinds.add(kind)
                if kind in _IMAGES:
                    images[key] = (member.offset_data, member.size)
                elif kind == _LABEL:
                    labels[key] = _label(archive, member, shard)
    except tarfile.TarError as error:
        raise SourceError(
            f"got {str(shard)!r}, which cannot be read to its end ({error}); "
            "expected an uncompressed, whole tar file"
        ) from error
    unpaired = sorted(images.keys() ^ labels.keys())
    if unpaired or not images:
        found = f"{len(images):,} images, {len(labels):,} labels and the kinds {sorted(kinds)}"
        raise SourceError(
            f"got {str(shard)!r}, which holds {found}; expected members KEY.jpg (or jpeg, png, "
            "webp, bmp) and KEY.cls" + (f"; {unpaired[0]!r} has but one" if unpaired else "")
        )
    return [(key, *place, labels[key]) for key, place in images.items()]


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo, shard: Path) -> int:
    """Reads the integer in a member."""
    file = archive.extractfile(member)
    text = file.read() if file else b""
    try:
        return int(text)
    except ValueError as error:
        raise SourceError(
            f"got {str(shard)!r}, where {member.name} holds {text[:20]!r}; "
            "expected a label, an integer as text"
        ) from error
