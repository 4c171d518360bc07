"""Reader of Parquet and Arrow shards with the columns of Hugging Face's ImageNet."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from rae_dit.data.files import Listing, SourceError, sizes_of
from rae_dit.data.lru_cache import LRUCache
from rae_dit.data.shards import find_shards, sorted_as_strings
from rae_dit.data.table_schema import Columns, Shard, describe, map_arrow, open_parquet
from rae_dit.storage.errors import StorageError

# In each process that reads; a row group of ImageNet is about 11 MB. The last group read is kept
# whatever its size.
_BYTES_KEPT = 128 * 2**20
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Tables:
    """The reader of `open_huggingface`: stores the row groups' places and reads them on access.

    Attributes:
        shards: the files.
        columns: names of the two columns.
        groups: int64 [groups, 2]: shard and number of the row group in it.
        first: int64 [groups + 1], number of the first row of each group, then of all rows.
        recent: row groups read last.
        fingerprint: hash of names, sizes and rows of the shards.
        listing: what was found.
    """

    shards: tuple[Path, ...]
    columns: Columns
    groups: np.ndarray
    first: np.ndarray
    recent: LRUCache[pa.Table]
    fingerprint: str
    listing: Listing

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def group_starts(self) -> np.ndarray | None:
        """See `InGroups`: a row of a parquet file costs its group, of an arrow file itself."""
        return self.first if self.shards[0].suffix == ".parquet" else None

    def read(self, index: int) -> tuple[bytes, int]:
        """See `Files`."""
        group, row = self._place(index)
        shard, number = self.groups[group].tolist()
        names = [self.columns.image, self.columns.label]
        try:
            table = self.recent.get(group, lambda: _read(self.shards[shard], number, names))
            image = _cell(table.column(self.columns.image), row)
            label = _cell(table.column(self.columns.label), row)
        except StorageError:
            raise
        except (OSError, pa.ArrowException, ValueError) as error:
            raise OSError(f"row group {number} is damaged: {error}") from error
        content = image["bytes"] if self.columns.nested and image is not None else image
        if content is None:
            path = image.get("path") if self.columns.nested and image is not None else None
            instead = f", but the path {path!r}" if path else ""
            raise OSError(f"the row holds no bytes{instead}")
        return content, -1 if label is None else label

    def name(self, index: int) -> str:
        """See `Files`."""
        group, _ = self._place(index)
        shard = self.groups[group, 0]
        start = self.first[np.flatnonzero(self.groups[:, 0] == shard)[0]]
        return f"{self.shards[shard]}: row {index - start}"

    def _place(self, index: int) -> tuple[int, int]:
        """Row group of a record, and its row in there."""
        group = int(np.searchsorted(self.first, index, side="right")) - 1
        return group, index - int(self.first[group])


def open_huggingface(path: str) -> Tables:
    """Opens all shards; reads only their schemas and row counts.

    The image is a column of structs {bytes, path} or of bytes, the label one of integers. Where
    there are several such columns, those named "image" and "label" are taken. A parquet file is
    read one row group at a time, which data/order.py takes into account; an arrow file
    (`datasets`, stream or file format) is mapped into memory and costs no more than its image.

    Args:
        path: a directory of *.parquet or *.arrow files, a pattern such as "DIRECTORY/train-*", or
            one file.

    Returns:
        The reader, rows in the order of the sorted names of the files.

    Raises:
        SourceError: there are no shards, one is damaged, holds paths in place of images, or has
            other columns or class names than the others.
    """
    shards, remarks = find_shards(path, (".parquet", ".arrow"))
    found = [open_shard(shard) for shard in shards]
    first = found[0]
    digest = hashlib.sha256()
    for shard, other in zip(shards, found, strict=True):
        if other.columns != first.columns:
            raise SourceError(
                f"got {str(shard)!r} with {other.columns}; expected {first.columns} as before"
            )
        if other.classes != first.classes:
            raise SourceError(
                f"got {str(shard)!r} with the classes {_shown(other.classes)}; expected "
                f"{_shown(first.classes)} as in {shards[0].name}"
            )
        digest.update(f"{shard.name} {shard.stat().st_size} {other.rows} ".encode())
    digest.update(repr(first.columns).encode())
    groups = [(n, group) for n, shard in enumerate(found) for group in range(len(shard.rows))]
    rows = [count for shard in found for count in shard.rows]
    if not sum(rows):
        raise SourceError(f"got {path!r}, whose files have no rows; expected images")
    recent: LRUCache[pa.Table] = LRUCache(len(shards))  # an arrow file is mapped, and stays so
    if shards[0].suffix == ".parquet":
        recent = LRUCache(_BYTES_KEPT, _bytes_of)
    return Tables(
        shards=tuple(shards),
        columns=first.columns,
        groups=np.array(groups, np.int64).reshape(-1, 2),
        first=np.cumsum([0, *rows], dtype=np.int64),
        recent=recent,
        fingerprint=f"huggingface/{sum(rows)}/{digest.hexdigest()[:12]}",
        listing=replace(_list(found, remarks), sizes=sizes_of(shards)),
    )


def open_shard(shard: Path) -> Shard:
    """Describes a shard.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        return describe(shard)
    except StorageError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"got {str(shard)!r}, which cannot be read ({' '.join(str(error).split())}); "
            f"expected a whole {shard.suffix[1:]} file"
        ) from error


def _shown(classes: tuple[str, ...] | None) -> str:
    """Shows the first class names."""
    if classes is None:
        return "unnamed"
    return ", ".join(classes[:_SHOWN]) + (", ..." if len(classes) > _SHOWN else "")


def _list(shards: list[Shard], remarks: tuple[str, ...]) -> Listing:
    """Sums up what the shards tell."""
    labels = [shard.labels for shard in shards if shard.labels is not None]
    told = len(labels) == len(shards)
    extremes = (min(low for low, _ in labels), max(high for _, high in labels)) if told else None
    if numbers := sorted_as_strings(shards[0].classes or ()):
        remarks = (*remarks, numbers)
    if without := sum(shard.without_bytes for shard in shards):
        remarks = (*remarks, f"{without:,} rows hold no image; they count as damaged")
    groups = sum(len(shard.rows) for shard in shards)
    of_one_class = sum(shard.of_one_class for shard in shards)
    if extremes and extremes[0] != extremes[1] and of_one_class > groups / 2:
        sorted_rows = (
            f"{of_one_class:,} of {groups:,} row groups hold a single class: shuffled by groups, a "
            "batch has few classes; data.shuffle='records' or rows in random order mix them"
        )
        remarks = (*remarks, sorted_rows)
    return Listing(len(shards), shards[0].classes, extremes, remarks)


def _read(shard: Path, group: int, columns: list[str]) -> pa.Table:
    """Reads one row group of a file."""
    if shard.suffix == ".arrow":
        return map_arrow(shard).select(columns)
    # Opened again: a ParquetFile is not for several threads, and hundreds of shards are many files.
    with open_parquet(shard) as file:
        return file.read_row_group(group, columns=columns, use_threads=False)


def _cell(column: pa.ChunkedArray, row: int) -> Any:
    """Reads one value, once it is known to lie within its file.

    An arrow file is mapped as it is: the offsets of a damaged one may lead anywhere, and pyarrow
    follows them. (The check takes 4 us, decoding an image 4 ms.)
    """
    cell = column.slice(row, 1)
    cell.validate(full=True)
    return cell[0].as_py()


def _bytes_of(table: pa.Table) -> int:
    return int(table.nbytes)
