"""Files of bench_loader.py: the same JPEGs as a folder, Parquet, Arrow, tar and TFDS."""

import importlib.util
import io
import json
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

HUB_GROUP = 100  # rows of a row group, as `datasets` writes image data sets to the Hub
ARROW_BATCH = 1000  # rows, as `datasets` writes its cache
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int64()),
    ]
)
Places = dict[str, tuple[str, str]]


def write_all(folder: Path, root: Path) -> tuple[Places, dict[str, str]]:
    """Writes the images of FOLDER/class_LABEL/*.jpg in every other format, in one random order.

    Args:
        folder: of the JPEGs.
        root: an existing directory for the others.

    Returns:
        {row: (data.source, path)}, and {row: why it is left out}.
    """
    paths = sorted(folder.glob("*/*.jpg"))
    random.Random(0).shuffle(paths)  # as the Hub's ImageNet is
    places = {
        "folder": ("folder", str(folder)),
        "parquet": ("huggingface", str(write_parquet(paths, root / "train.parquet"))),
        "arrow": ("huggingface", str(write_arrow(paths, root / "train.arrow"))),
        "tar": ("tar", str(write_tar(paths, root / "train.tar"))),
    }
    missing = [name for name in ("tensorflow_datasets", "array_record") if not installed(name)]
    if missing:
        return places, {"tfds": f"{' and '.join(missing)} not installed"}
    try:
        return places | {"tfds": ("tfds", f"{write_tfds(paths, root / 'tfds')}#train")}, {}
    except ImportError as error:  # tensorflow, which some versions of tensorflow_datasets need
        return places, {"tfds": str(error)}


def installed(name: str) -> bool:
    """Tells whether a package can be imported."""
    return importlib.util.find_spec(name) is not None


def tables(paths: list[Path], rows: int) -> Iterator[pa.Table]:
    """Yields tables of so many images."""
    for start in range(0, len(paths), rows):
        some = paths[start : start + rows]
        images = [{"bytes": path.read_bytes(), "path": path.name} for path in some]
        columns = {"image": images, "label": [label_of(path) for path in some]}
        yield pa.Table.from_pydict(columns, SCHEMA)


def label_of(path: Path) -> int:
    """Reads the label off the name of a directory."""
    return int(path.parent.name.removeprefix("class_"))


def write_parquet(paths: list[Path], file: Path) -> Path:
    """Writes one Parquet file in row groups of 100 images."""
    with pyarrow.parquet.ParquetWriter(file, SCHEMA) as writer:
        for table in tables(paths, HUB_GROUP):
            writer.write_table(table, row_group_size=HUB_GROUP)
    return file


def write_arrow(paths: list[Path], file: Path) -> Path:
    """Writes one Arrow stream."""
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for table in tables(paths, ARROW_BATCH):
            writer.write_table(table)
    return file


def write_tar(paths: list[Path], file: Path) -> Path:
    """Writes one shard in WebDataset layout."""
    with tarfile.open(file, "w") as archive:
        for number, path in enumerate(paths):
            label = str(label_of(path)).encode()
            for suffix, content in (("jpg", path.read_bytes()), ("cls", label)):
                member = tarfile.TarInfo(f"{number:08d}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return file


def write_tfds(paths: list[Path], root: Path) -> Path:
    """Writes what `download_and_prepare` leaves behind: ROOT/plain/1.0.0."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    classes = 1 + max(map(label_of, paths))
    kinds: dict[str, Any] = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(num_classes=classes),
    }
    features = tfds.features.FeaturesDict(kinds)
    serializer = ExampleSerializer(features.get_serialized_info())
    folder = root / "plain" / "1.0.0"
    folder.mkdir(parents=True)
    writer = ArrayRecordWriter(
        str(folder / "plain-train.array_record-00000-of-00001"), "group_size:1"
    )
    for path in paths:
        example = {"image": io.BytesIO(path.read_bytes()), "label": label_of(path)}
        writer.write(serializer.serialize_example(features.encode_example(example)))
    writer.close()
    split = {"name": "train", "shardLengths": [str(len(paths))], "numBytes": "1"}
    split["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    described = {"name": "plain", "version": "1.0.0", "fileFormat": "array_record"}
    (folder / "dataset_info.json").write_text(json.dumps(described | {"splits": [split]}))
    features.save_config(folder)
    return folder
