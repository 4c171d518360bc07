"""Parquet and arrow shards of encoded images, for the tests of their reader."""

import json

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from support.image_files import encoded

_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table(numbers, *, nested=True, image="image", label="label", more=()) -> pa.Table:
    """A table of images with labels `number % 3`."""
    contents = [encoded(n, "JPEG") for n in numbers]
    if nested:
        images = pa.array([{"bytes": c, "path": f"{c[0]}.jpg"} for c in contents], _STRUCT)
    else:
        images = pa.array(contents, pa.binary())
    columns = {image: images, label: pa.array([n % 3 for n in numbers], pa.int64())}
    return pa.table(columns | dict(more))


def named(content: pa.Table, classes: list[str]) -> pa.Table:
    """The same table with class names, where `datasets` writes them."""
    features = {"label": {"names": classes, "_type": "ClassLabel"}}
    description = json.dumps({"info": {"features": features}})
    return content.replace_schema_metadata({"huggingface": description})


def write_shard(path, content: pa.Table, rows: int = 3) -> None:
    """A shard in groups of `rows` rows, in the format that the name says."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(content, path, row_group_size=rows)
        return
    with pa.OSFile(str(path), "wb") as file:
        is_file = path.name.startswith("file")
        make = pyarrow.ipc.new_file if is_file else pyarrow.ipc.new_stream
        with make(file, content.schema) as writer:
            writer.write_table(content, max_chunksize=rows)
