"""Reader of WebDataset tar shards: members KEY.jpg and KEY.cls are one record."""

import hashlib
import logging
import tarfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rae_dit.data.files import Listing, PackedStrings, SourceError, sizes_of
from rae_dit.data.images import SUFFIXES
from rae_dit.data.shards import find_shards, kind_of, left_out
from rae_dit.storage.places import is_url
from rae_dit.storage.reading import open_binary, read_range

log = logging.getLogger(__name__)

_IMAGES = frozenset(suffix[1:] for suffix in SUFFIXES)
_LABEL = "cls"
_LONGEST_LABEL = 64  # bytes
_LISTED_AT_ONCE = 16  # shards in a bucket, whose latency is much of the time


@dataclass(frozen=True, eq=False)
class Tar:
    """The reader of `open_tar`: stores the offset of every image and reads bytes in place.

    Attributes:
        shards: the tar files.
        keys: of all records, "DIRECTORY/NAME" within their tar.
        table: int64 [records, 4]: shard, offset and size in bytes, label.
        fingerprint: hash of names, places and labels.
        listing: what was found.
    """

    shards: tuple[Path, ...]
    keys: PackedStrings
    table: np.ndarray
    fingerprint: str
    listing: Listing

    def __len__(self) -> int:
        return len(self.table)

    def read(self, index: int) -> tuple[bytes, int]:
        """See `Files`."""
        shard, offset, size, label = self.table[index].tolist()
        return read_range(self.shards[shard], offset, size), label

    def name(self, index: int) -> str:
        """See `Files`."""
        return f"{self.shards[self.table[index, 0]]}: {self.keys[index].decode(errors='replace')}"


class _Record(NamedTuple):
    key: str
    offset: int
    size: int
    label: int


def open_tar(path: str) -> Tar:
    """Lists the members of all shards, in one pass over their headers; nothing is written.

    By WebDataset's rule, everything from the first dot of a member's file name on is its kind, the
    rest its key. A record is a key with an image (an ending of `images.SUFFIXES`) and "cls", an
    integer as text. Where keys themselves hold dots ("photo v2.0.jpg", "photo v2.0.cls"), such a
    pair is a record too. Other members are left out and counted by their kind.

    Args:
        path: a directory of *.tar, a pattern such as "DIRECTORY/train-*.tar", or one file.

    Returns:
        The reader, records in the order of shards and members.

    Raises:
        SourceError: there are no shards, one is cut off or compressed, a record lacks its image or
            label, or has two of them.
    """
    shards, remarks = find_shards(path, (".tar",))
    keys: list[bytes] = []
    rows: list[tuple[int, int, int, int]] = []
    others: Counter[str] = Counter()
    digest = hashlib.sha256()
    for number, (shard, records) in enumerate(
        zip(shards, _all_records(shards, others), strict=True)
    ):
        for record in records:
            keys.append(record.key.encode(errors="surrogateescape"))
            rows.append((number, record.offset, record.size, record.label))
        if number % 100 == 99:
            log.info("listing %s: %d images in %d shards so far", path, len(rows), number + 1)
        digest.update(f"{shard.name} {shard.stat().st_size} ".encode())
    table = np.array(rows, np.int64)
    digest.update(b"\0".join(keys))
    digest.update(table.astype("<i8").tobytes())
    labels = int(table[:, 3].min()), int(table[:, 3].max())
    dotted = sum(b"." in key.rpartition(b"/")[2] for key in keys)
    dots = (f"{dotted:,} keys hold dots; their kind begins at the last one",) if dotted else ()
    return Tar(
        shards=tuple(shards),
        keys=PackedStrings(keys),
        table=table,
        fingerprint=f"tar/{len(rows)}/{digest.hexdigest()[:12]}",
        listing=Listing(
            len(shards),
            labels=labels,
            remarks=(*remarks, *left_out(others), *dots),
            sizes=sizes_of(shards),
        ),
    )


def _all_records(shards: list[Path], others: Counter[str]) -> Iterator[list[_Record]]:
    """Lists the records of all shards in order; in a bucket, of several shards at once."""
    if not is_url(shards[0]):
        yield from (_records(shard, others) for shard in shards)
        return

    def listed(shard: Path) -> tuple[list[_Record], Counter[str]]:
        own: Counter[str] = Counter()
        return _records(shard, own), own

    with ThreadPoolExecutor(_LISTED_AT_ONCE) as pool:
        for records, own in pool.map(listed, shards):
            others.update(own)
            yield records


def _records(shard: Path, others: Counter[str]) -> list[_Record]:
    """Lists one shard's records in the order of their images; counts other members by kind."""
    pairs, dotted = _Pairs(shard), _Pairs(shard)
    try:
        with open_binary(shard) as file, tarfile.open(shard.name, "r:", file) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                first, last = name.partition(".")[2].lower(), name.rpartition(".")[2].lower()
                if member.isdir():
                    continue
                if not member.isfile() or name.startswith(".") or member.size < 0:
                    others["hidden" if name.startswith(".") else "link or device"] += 1
                elif first in _IMAGES or first == _LABEL:
                    pairs.add(member, first)
                elif "." in first and (last in _IMAGES or last == _LABEL):
                    dotted.add(member, last)
                else:
                    others[f".{first}" if first else kind_of(name)] += 1
            records = pairs.records(archive)
            if unpaired := sorted(pairs.unpaired()):
                raise SourceError(
                    _described(shard, pairs, others, f"; {unpaired[0]!r} has but one")
                )
            records += dotted.records(archive)
    except (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(
            f"got {str(shard)!r}, which cannot be read to its end ({error}); "
            "expected an uncompressed, whole tar file"
        ) from error
    others.update("." + name.partition(".")[2].lower() for name in dotted.unpaired_names())
    if not records:
        raise SourceError(_described(shard, pairs, others, ""))
    return sorted(records, key=lambda record: record.offset)


def _described(shard: Path, pairs: "_Pairs", others: Counter[str], problem: str) -> str:
    found = f"{len(pairs.images):,} images, {len(pairs.labels):,} labels and the kinds "
    kinds = sorted(pairs.kinds | {kind.removeprefix(".") for kind in others})
    return (
        f"got {str(shard)!r}, which holds {found}{kinds}; expected members KEY.jpg (or jpeg, png, "
        f"webp, ...) and KEY.cls{problem}"
    )


class _Pairs:
    """Images and labels of one shard by key, the name up to the dot before the kind."""

    def __init__(self, shard: Path) -> None:
        self.shard = shard
        self.images: dict[str, tarfile.TarInfo] = {}
        self.labels: dict[str, tarfile.TarInfo] = {}
        self.kinds: set[str] = set()

    def add(self, member: tarfile.TarInfo, kind: str) -> None:
        """Files a member under its key.

        Raises:
            SourceError: the key has such a member already, as webdataset refuses it.
        """
        self.kinds.add(kind)
        members = self.labels if kind == _LABEL else self.images
        key = member.name[: -len(kind) - 1]
        if before := members.get(key):
            both = f"{before.name!r} and {member.name!r}"
            raise SourceError(
                f"got {str(self.shard)!r}, which holds both {both}; expected one image and one "
                "label for a key"
            )
        members[key] = member

    def records(self, archive: tarfile.TarFile) -> list[_Record]:
        """Reads the labels of the keys that have both."""
        return [
            _Record(
                key, image.offset_data, image.size, _label(archive, self.labels[key], self.shard)
            )
            for key, image in self.images.items()
            if key in self.labels
        ]

    def unpaired(self) -> set[str]:
        """Returns the keys that have but one of the two."""
        return self.images.keys() ^ self.labels.keys()

    def unpaired_names(self) -> list[str]:
        """Returns the file names of members whose key has but one of the two."""
        both = self.images | self.labels
        return [both[key].name.rpartition("/")[2] for key in self.unpaired()]


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo, shard: Path) -> int:
    """Reads the integer in a member."""
    file = archive.extractfile(member)
    text = file.read(_LONGEST_LABEL) if file else b""
    try:
        label = int(text)
        if not -(2**31) <= label < 2**31:
            raise ValueError("too large")
    except ValueError as error:
        raise SourceError(
            f"got {str(shard)!r}, where {member.name} holds {text[:20]!r}; "
            "expected a label, an integer as text"
        ) from error
    return label
