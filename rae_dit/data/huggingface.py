"""Reader of Parquet and Arrow shards with the columns of Hugging Face's ImageNet."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from rae_dit.data.files import SourceError
from rae_dit.data.lru_cache import LRUCache
from rae_dit.data.shards import find_shards

# In each process that reads; a row group of ImageNet is about 11 MB. The last group read is kept
# whatever its size.
_BYTES_KEPT = 128 * 2**20


@dataclass(frozen=True)
class Columns:
    """Names of the image and label columns; `nested`: the image is a struct {bytes, path}."""

    image: str
    label: str
    nested: bool


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
    """

    shards: tuple[Path, ...]
    columns: Columns
    groups: np.ndarray
    first: np.ndarray
    recent: LRUCache[pa.Table]
    fingerprint: str

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
            image = table.column(self.columns.image)[row].as_py()
            label = table.column(self.columns.label)[row].as_py()
        except (OSError, pa.ArrowException) as error:
            raise OSError(f"row group {number} is damaged: {error}") from error
        content = image["bytes"] if self.columns.nested and image is not None else image
        if content is None:
            raise OSError("the row holds no bytes")
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
        SourceError: there are no shards, one is damaged, or the columns are others.
    """
    shards = find_shards(path, (".parquet", ".arrow"))
    columns = None
    groups: list[tuple[int, int]] = []
    rows: list[int] = []
    digest = hashlib.sha256()
    for number, shard in enumerate(shards):
        try:
            schema, lengths = describe(shard)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(
                f"got {str(shard)!r}, which cannot be read ({' '.join(str(error).split())}); "
                f"expected a whole {shard.suffix[1:]} file"
            ) from error
        found = find_columns(schema, shard)
        if columns is not None and found != columns:
            raise SourceError(f"got {str(shard)!r} with {found}; expected {columns} as before")
        columns = found
        groups += [(number, group) for group in range(len(lengths))]
        rows += lengths
        digest.update(f"{shard.name} {shard.stat().st_size} {lengths} ".encode())
    assert columns is not None  # there is at least one shard
    digest.update(repr(columns).encode())
    recent: LRUCache[pa.Table] = LRUCache(len(shards))  # an arrow file is mapped, and stays so
    if shards[0].suffix == ".parquet":
        recent = LRUCache(_BYTES_KEPT, _bytes_of)
    return Tables(
        shards=tuple(shards),
        columns=columns,
        groups=np.array(groups, np.int64).reshape(-1, 2),
        first=np.cumsum([0, *rows], dtype=np.int64),
        recent=recent,
        fingerprint=f"huggingface/{sum(rows)}/{digest.hexdigest()[:12]}",
    )


def find_columns(schema: pa.Schema, shard: Path) -> Columns:
    """Finds image and label among the columns of a file.

    Raises:
        SourceError: there is none or no telling which; lists what there is.
    """
    nested = [field.name for field in schema if _is_image_struct(field.type)]
    images = nested + [field.name for field in schema if _is_bytes(field.type)]
    labels = [field.name for field in schema if pa.types.is_integer(field.type)]
    image, label = _choose(images, "image"), _choose(labels, "label")
    if image is None or label is None:
        found = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise SourceError(
            f"got {str(shard)!r} with the columns {found}; expected 'image' (bytes, or a struct "
            "with bytes) and 'label' (integer)"
        )
    return Columns(image, label, nested=image in nested)


def _choose(names: list[str], preferred: str) -> str | None:
    return preferred if preferred in names else names[0] if len(names) == 1 else None


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_image_struct(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(f.name == "bytes" and _is_bytes(f.type) for f in kind)


def describe(shard: Path) -> tuple[pa.Schema, list[int]]:
    """Columns of a file and the rows of each of its groups; an arrow file is one group."""
    if shard.suffix == ".arrow":
        table = _map(shard)
        return table.schema, [table.num_rows]
    with pyarrow.parquet.ParquetFile(shard) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        return file.schema_arrow, sizes


def _read(shard: Path, group: int, columns: list[str]) -> pa.Table:
    """Reads one row group of a file."""
    if shard.suffix == ".arrow":
        return _map(shard).select(columns)
    # Opened again: a ParquetFile is not for several threads, and hundreds of shards are many files.
    with pyarrow.parquet.ParquetFile(shard, memory_map=True) as file:
        return file.read_row_group(group, columns=columns, use_threads=False)


def _bytes_of(table: pa.Table) -> int:
    return int(table.nbytes)


def _map(shard: Path) -> pa.Table:
    """Maps a whole arrow file into memory without reading it."""
    mapped = pa.memory_map(str(shard))
    if mapped.read(6) == b"ARROW1":
        return pyarrow.ipc.open_file(mapped).read_all()
    mapped.seek(0)
    return pyarrow.ipc.open_stream(mapped).read_all()
