"""Data sources by name: name and path -> numbered records."""

from typing import Literal, assert_never, get_args

from rae_dit.data.files import Crop, Files, Images, SourceError
from rae_dit.data.sources import Source, digits, synthetic

Kind = Literal["folder", "huggingface", "tfds", "tar"]  # read files
SourceName = Literal["digits", "synthetic", "folder", "huggingface", "tfds", "tar"]
Split = Literal["train", "validation"]

SYNTHETIC_IMAGES = 1024


def open_source(
    name: SourceName,
    path: str,
    *,
    split: Split,
    image_size: int,
    num_classes: int,
    crop: Crop,
    max_bad_share: float,
) -> Source:
    """Opens one split of a data source.

    Args:
        name: the source.
        path: where its files are, see the reader; unused by "digits" and "synthetic".
        split: the part to take where one path, or none, holds several.
        image_size: side in pixels of the images to make.
        num_classes: labels are 0..num_classes-1.
        crop: see `Images`.
        max_bad_share: see `Images`.

    Returns:
        The records.

    Raises:
        SourceError: the name is unknown, or the path does not hold what the reader expects.
    """
    match name:
        case "digits":
            return digits(split, image_size)
        case "synthetic":
            seed = 0 if split == "train" else 1
            return synthetic(image_size, num_classes, SYNTHETIC_IMAGES, seed)
        case "folder" | "huggingface" | "tfds" | "tar":
            return Images(
                files=_open_files(name, path, split, num_classes),
                image_size=image_size,
                num_classes=num_classes,
                crop=crop,
                max_bad_share=max_bad_share,
            )
    raise SourceError(f"source: got {name!r}; expected one of {', '.join(get_args(SourceName))}")


def _open_files(kind: Kind, path: str, split: str, num_classes: int) -> Files:
    """Opens a reader; imported late, so that each source needs its own packages only."""
    match kind:
        case "folder":
            from rae_dit.data.folder import open_folder

            return open_folder(path, num_classes)
        case "huggingface":
            from rae_dit.data.huggingface import open_huggingface

            return open_huggingface(path)
        case "tfds":
            from rae_dit.data.tfds import open_tfds

            return open_tfds(path, split)
        case "tar":
            from rae_dit.data.tar import open_tar

            return open_tar(path)
    assert_never(kind)
