"""Reader of TensorFlow Datasets prepared as array_record files; TensorFlow is not needed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rae_dit.data.files import Listing, SourceError, sizes_of
from rae_dit.data.shards import directory, found_in
from rae_dit.storage.errors import StorageError, storage_failure


@dataclass(frozen=True, eq=False)
class Tfds:
    """The reader of `open_tfds`.

    Attributes:
        records: TFDS's data source; images in it are left encoded.
        image: name of the image feature.
        label: name of the label feature.
        place: directory and split, for messages.
        fingerprint: name, version, split and length.
        listing: what was found.
    """

    records: Any
    image: str
    label: str
    place: str
    fingerprint: str
    listing: Listing

    def __len__(self) -> int:
        return len(self.records)

    def read(self, index: int) -> tuple[bytes, int]:
        """See `Files`."""
        try:
            record = self.records[index]
            return bytes(record[self.image]), int(record[self.label])
        except Exception as error:  # of array_record, protobuf and numpy
            if reason := storage_failure(error):
                raise StorageError(f"{self.name(index)}: {reason}") from error
            raise OSError(f"the record is damaged: {error}") from error

    def name(self, index: int) -> str:
        """See `Files`."""
        return f"{self.place}: record {index}"


def open_tfds(path: str, split: str) -> Tfds:
    """Opens a prepared data set.

    Args:
        path: directory of one version, for example ".../imagenet2012/5.1.0"; "#SPLIT" behind it
            chooses another split, or a part of one in the language of TFDS:
            ".../5.1.0#train[:98%]".
        split: the split if the path names none.

    Returns:
        The reader, in the order of TFDS.

    Raises:
        SourceError: there is no such data set or split, its files are no array_record files,
            or it has no image or no label.
    """
    path, _, chosen = path.partition("#")
    split = chosen or split
    expected = "the directory of one version of a prepared TFDS data set (with dataset_info.json)"
    folder = directory(path, expected)
    if not (folder / "dataset_info.json").is_file():
        raise SourceError(f"got {path!r}, which holds {found_in(folder)}; expected {expected}")
    try:
        return _open(folder, path, split)
    except (SourceError, StorageError):
        raise
    except Exception as error:  # of JSON, protobuf and array_record, and of attributes they miss
        raise SourceError(
            f"got {path!r}, which cannot be read ({' '.join(str(error).split())}); "
            f"expected {expected}"
        ) from error


def _open(folder: Path, path: str, split: str) -> Tfds:
    """Opens a directory; see `open_tfds`."""
    # Late: the package is slow to import, and other sources do not need it.
    import tensorflow_datasets

    builder = tensorflow_datasets.builder_from_directory(folder)
    info = builder.info
    if split.partition("[")[0] not in info.splits:
        found = ", ".join(info.splits) or "none"
        raise SourceError(
            f"got {path!r}, which has the splits {found}; expected {split!r}; "
            f"choose one as '{path}#SPLIT'"
        )
    formats = {kind.value for kind in info.available_file_formats()}
    if "array_record" not in formats:
        raise SourceError(
            f"got {path!r}, whose files are {' and '.join(sorted(formats))}; expected "
            "array_record, since others have no random access; prepare it again with "
            "builder.download_and_prepare(file_format='array_record')"
        )
    kinds = tensorflow_datasets.features
    image = _feature(info.features, kinds.Image, "image", path)
    label = _feature(info.features, kinds.ClassLabel, "label", path)
    if not info.splits[split].num_examples:
        raise SourceError(f"got {path!r}, where the split {split!r} has 0 records; expected some")
    records = builder.as_data_source(
        split=split,
        decoders={image: tensorflow_datasets.decode.SkipDecoding()},
        file_format="array_record",
    )
    return Tfds(
        records=records,
        image=image,
        label=label,
        place=f"{folder}#{split}",
        fingerprint=f"tfds/{info.full_name}/{split}/{len(records)}",
        listing=Listing(
            len(info.splits[split].filenames),
            classes=tuple(info.features[label].names),
            sizes=sizes_of(info.splits[split].filepaths),
        ),
    )


def _feature(features: Any, kind: type, preferred: str, path: str) -> str:
    """Finds the name of the feature of a kind; the preferred one if there are several."""
    names = [name for name, feature in features.items() if isinstance(feature, kind)]
    if preferred in names:
        return preferred
    if len(names) == 1:
        return names[0]
    described = [f"{name} ({type(feature).__name__})" for name, feature in features.items()]
    found = ", ".join(sorted(described))  # TFDS gives them in no fixed order
    raise SourceError(
        f"got {path!r} with the features {found}; expected one {preferred!r} ({kind.__name__})"
    )
