"""Data sources by name: name and path -> numbered records."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, assert_never, get_args

from rae_dit.data.files import Crop, Files, Images, Listing, SourceError
from rae_dit.data.latents import StoredLatents
from rae_dit.data.sources import Source, digits, synthetic

Kind = Literal["folder", "huggingface", "tfds", "tar"]  # read files
SourceName = Literal["digits", "synthetic", "folder", "huggingface", "tfds", "tar"]
Split = Literal["train", "validation"]

SYNTHETIC_IMAGES = 1024
_SHOWN = 5


def open_source(
    name: SourceName,
    path: str,
    *,
    split: Split,
    image_size: int,
    num_classes: int,
    crop: Crop,
    max_bad_share: float,
    numeric_classes: bool = False,
    listings: Path | None = None,
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
        numeric_classes: see `folder.open_folder`; False for other sources.
        listings: directory where listings of folders and tar files are kept; None for none.

    Returns:
        The records.

    Raises:
        SourceError: the name is unknown, the path does not hold what the reader expects, or the
            classes or labels that it tells are not `num_classes`.
    """
    if numeric_classes and name != "folder":
        raise SourceError(f"numeric_classes: got True; expected False for source {name!r}")
    match name:
        case "digits":
            return digits(split, image_size)
        case "synthetic":
            seed = 0 if split == "train" else 1
            return synthetic(image_size, num_classes, SYNTHETIC_IMAGES, seed)
        case "folder" | "huggingface" | "tfds" | "tar":
            with _readable(path):
                files = _reader(name, path, split, num_classes, numeric_classes, listings)
            _check_classes(path, files.listing, num_classes)
            return Images(
                files=files,
                image_size=image_size,
                num_classes=num_classes,
                crop=crop,
                max_bad_share=max_bad_share,
            )
    raise SourceError(f"source: got {name!r}; expected one of {', '.join(get_args(SourceName))}")


def describe(source: Source) -> str:
    """Describes an open source in one line: images, classes, files and what was left out."""
    line = f"{len(source):,} images of {source.num_classes:,} classes"
    if not isinstance(source, Images):
        return line
    listing = source.files.listing
    files = f"{listing.files:,} {'file' if listing.files == 1 else 'files'}"
    return "; ".join([f"{line} from {files}", *listing.remarks])


def class_difference(source: Source, other: Source) -> str | None:
    """Describes the first label that means another class in `other`; None if none is known."""
    wanted, found = class_names(source), class_names(other)
    if wanted is None or found is None or wanted == found:
        return None
    for label, (here, there) in enumerate(zip(wanted, found, strict=False)):
        if here != there:
            return f"label {label} is {there!r}, not {here!r}"
    return f"there are {len(found)} classes, not {len(wanted)}"


def class_names(source: Source) -> tuple[str, ...] | None:
    """Returns the class names that an open source has read; None if nothing there tells them."""
    if isinstance(source, StoredLatents):
        return source.manifest.classes
    return source.files.listing.classes if isinstance(source, Images) else None


def _check_classes(path: str, listing: Listing, num_classes: int) -> None:
    """Checks number of classes and range of labels, as far as a reader knows them."""
    names, labels = listing.classes, listing.labels
    if names is not None and len(names) != num_classes:
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        raise SourceError(
            f"got {path!r} with {len(names)} classes ({shown}); expected data.num_classes = "
            f"{num_classes} of them"
        )
    if labels is not None and not 0 <= labels[0] <= labels[1] < num_classes:
        raise SourceError(
            f"got {path!r} with the labels {labels[0]} to {labels[1]}; expected 0 to "
            f"{num_classes - 1}, because data.num_classes = {num_classes}; choose files of a "
            "labeled split, or correct the number"
        )


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Names the file of a source that cannot be read.

    Raises:
        SourceError: a directory or file cannot be.
    """
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"got {path!r}, which cannot be read ({error.strerror or error}: {error.filename}); "
            "expected readable files"
        ) from error


def _reader(
    kind: Kind,
    path: str,
    split: str,
    num_classes: int,
    numeric_classes: bool,
    listings: Path | None,
) -> Files:
    """Opens a reader; imported late, so that each source needs its own packages only.

    Raises:
        SourceError: the path holds something else.
        OSError: a directory or file cannot be read.
    """
    if listings is not None and kind in ("folder", "tar"):
        from rae_dit.data.listing_cache import kept_or_listed

        return kept_or_listed(
            listings,
            path,
            (kind, num_classes, numeric_classes),
            lambda: _reader(kind, path, split, num_classes, numeric_classes, None),
        )
    match kind:
        case "folder":
            from rae_dit.data.folder import open_folder

            return open_folder(path, num_classes, numeric_classes=numeric_classes)
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
