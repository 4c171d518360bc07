"""A TFDS data set of encoded images, written without tensorflow."""

import io
import json

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from support.image_files import encoded


def write_tfds(root, splits, *, kind="array_record", image="image", more=()):
    """What `download_and_prepare` leaves behind: ROOT/tiny/1.0.0."""
    kinds = {image: tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=3)}
    features = tfds.features.FeaturesDict(kinds | dict(more))
    serializer = ExampleSerializer(features.get_serialized_info())
    folder = root / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    info = []
    for split, numbers in splits.items():
        path = folder / f"tiny-{split}.{kind}-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for n in numbers:
            example = {image: io.BytesIO(encoded(n, "JPEG")), "label": n % 3}
            writer.write(serializer.serialize_example(features.encode_example(example)))
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        info.append(
            {"name": split, "shardLengths": [str(len(numbers))], "numBytes": "1",
             "filepathTemplate": template}
        )  # fmt: skip
    described = {"name": "tiny", "version": "1.0.0", "fileFormat": kind, "splits": info}
    (folder / "dataset_info.json").write_text(json.dumps(described))
    features.save_config(folder)
    return folder
