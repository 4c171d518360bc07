"""Schema and statistics of Parquet and Arrow shards, read without reading an image."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from rae_dit.data.files import SourceError
from rae_dit.storage.places import is_url
from rae_dit.storage.reading import local_copy, open_binary


class Columns(NamedTuple):
    """Names of the image and label columns; `nested`: the image is a struct {bytes, path}."""

    image: str
    label: str
    nested: bool


class Shard(NamedTuple):
    """What the head or the tail of a file tells.

    Attributes:
        columns: of image and label.
        rows: of each row group; an arrow file is one group.
        classes: names of the labels, where `datasets` wrote them; else None.
        labels: lowest and highest label, where the file tells; else None.
        without_bytes: number of rows whose image has no bytes, as far as the file tells.
        of_one_class: number of row groups whose rows all have one label, as far as the file tells.
    """

    columns: Columns
    rows: list[int]
    classes: tuple[str, ...] | None
    labels: tuple[int, int] | None
    without_bytes: int
    of_one_class: int


def describe(shard: Path) -> Shard:
    """Reads schema and statistics of a file.

    Raises:
        SourceError: no image or no label column, or paths in place of all images.
        OSError or pyarrow.ArrowException: it cannot be read.
    """
    if shard.suffix == ".arrow":
        table = map_arrow(shard)
        columns = find_columns(table.schema, shard)
        rows, labels, of_one_class = [table.num_rows], None, 0
        without_bytes = _nulls_of(table.column(columns.image))
        schema = table.schema
    else:
        with open_parquet(shard) as file:
            schema, metadata = file.schema_arrow, file.metadata
            columns = find_columns(schema, shard)
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        rows = [group.num_rows for group in groups]
        image = f"{columns.image}.bytes" if columns.nested else columns.image
        nulls = [_statistics(group, image) for group in groups]
        without_bytes = sum(found.null_count or 0 for found in nulls if found)
        found_labels = [_statistics(group, columns.label) for group in groups]
        labels = _extremes(found_labels)
        of_one_class = sum(bool(s and s.has_min_max and s.min == s.max) for s in found_labels)
    if without_bytes and without_bytes == sum(rows):
        raise SourceError(
            f"got {str(shard)!r}, whose {sum(rows):,} rows hold {_in_place_of_bytes(columns)} and "
            "no image; expected images inside of the files; write them again after "
            "dataset.with_format('arrow').map(datasets.table.embed_table_storage, batched=True)"
        )
    classes = class_names(schema, columns.label)
    return Shard(columns, rows, classes, labels, without_bytes, of_one_class)


def find_columns(schema: pa.Schema, shard: Path) -> Columns:
    """Finds image and label among the columns of a file.

    Raises:
        SourceError: there is none or no telling which; lists what there is.
    """
    nested = [field.name for field in schema if _is_image_struct(field.type)]
    images = nested + [field.name for field in schema if _is_bytes(field.type)]
    labels = [field.name for field in schema if pa.types.is_integer(field.type)]
    image, label = _choose(images, "image"), _choose(labels, "label")
    if image is None or label is None or schema.names.count(image) + schema.names.count(label) > 2:
        found = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise SourceError(
            f"got {str(shard)!r} with the columns {found}; expected 'image' (bytes, or a struct "
            "with bytes) and 'label' (integer)"
        )
    return Columns(image, label, nested=image in nested)


def class_names(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """Returns the names that `datasets` writes into the schema of a file; None if there are none.

    Args:
        schema: of the file.
        label: name of the label column.
    """
    try:
        described = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(str(name) for name in described["info"]["features"][label]["names"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


@contextmanager
def open_parquet(shard: Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    """Opens a parquet file: mapped into memory, or in a bucket, of which only parts are read."""
    if not is_url(shard):
        with pyarrow.parquet.ParquetFile(shard, memory_map=True) as file:
            yield file
        return
    with (
        open_binary(shard) as content,
        pyarrow.parquet.ParquetFile(content, pre_buffer=True) as file,
    ):
        yield file


def map_arrow(shard: Path) -> pa.Table:
    """Maps a whole arrow file into memory without reading it; downloads it first from a bucket."""
    mapped = pa.memory_map(str(local_copy(shard)))
    if mapped.read(6) == b"ARROW1":
        return pyarrow.ipc.open_file(mapped).read_all()
    mapped.seek(0)
    return pyarrow.ipc.open_stream(mapped).read_all()


def _choose(names: list[str], preferred: str) -> str | None:
    return preferred if preferred in names else names[0] if len(names) == 1 else None


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_image_struct(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(f.name == "bytes" and _is_bytes(f.type) for f in kind)


def _nulls_of(column: pa.ChunkedArray) -> int:
    """Counts images without bytes, from the counts that an arrow file holds."""
    if not pa.types.is_struct(column.type):
        return int(column.null_count)
    nulls = 0
    for chunk in column.chunks:
        images, contents = chunk.null_count, chunk.field("bytes").null_count
        if images and contents:  # perhaps of the same rows
            contents = chunk.flatten()[chunk.type.get_field_index("bytes")].null_count
            images = 0
        nulls += images + contents
    return nulls


def _statistics(group: pyarrow.parquet.RowGroupMetaData, path: str) -> pyarrow.parquet.Statistics:
    """Returns the statistics of a column of a row group; None if it has none."""
    for i in range(group.num_columns):
        if group.column(i).path_in_schema == path:
            return group.column(i).statistics
    return None


def _extremes(found: list[pyarrow.parquet.Statistics]) -> tuple[int, int] | None:
    """Returns the lowest and the highest value of all row groups; None if one does not tell."""
    if not found or not all(s is not None and s.has_min_max for s in found):
        return None
    return min(int(s.min) for s in found), max(int(s.max) for s in found)


def _in_place_of_bytes(columns: Columns) -> str:
    return "paths" if columns.nested else "nothing"
