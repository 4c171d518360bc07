"""One door to the readers of image files."""

from typing import Literal, assert_never

from rae_dit.data.files import Crop, Files, Images

Kind = Literal["folder", "huggingface", "tfds", "tar"]


def open_images(
    kind: Kind,
    path: str,
    *,
    split: Literal["train", "validation"],
    image_size: int,
    num_classes: int,
    crop: Crop,
    max_bad_share: float,
) -> Images:
    """Open image files of one split.

    Args:
        kind: how they lie on the disk.
        path: where; see the reader.
        split: which split to take where one path holds several ("tfds").
        image_size: side in pixels of the images to make.
        num_classes: labels are 0..num_classes-1.
        crop: see `Images`.
        max_bad_share: see `Images`.

    Returns:
        The source.

    Raises:
        SourceError: if the path does not hold what the reader expects.
    """
    return Images(
        files=_open_files(kind, path, split, num_classes),
        image_size=image_size,
        num_classes=num_classes,
        crop=crop,
        max_bad_share=max_bad_share,
    )


def _open_files(kind: Kind, path: str, split: str, num_classes: int) -> Files:
    """The reader; imported late, so that each source needs its own packages only."""
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
