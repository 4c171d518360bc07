"""Data sources: the `Source` protocol, and the two sources that read no files."""

import colorsys
import hashlib
import operator
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

import numpy as np

_DIGITS_SIDE = 8
_DIGITS_LEVELS = 16
_DIGITS_CLASSES = 10
_VALIDATION_FRACTION = 0.2
# The split is part of what a number in a report means, so its seed is not a setting.
_SPLIT_SEED = 20_251_013


class Record(TypedDict):
    """One example: image uint8 [H,W,3] with values 0..255, label in 0..num_classes-1."""

    image: np.ndarray
    label: int


class Source(Protocol):
    """Protocol of data sources: numbered records, thread-safe and picklable.

    All records of one source have the same image shape. `__getitem__` returns the same record
    for the same index, always, and raises IndexError outside 0..len-1.
    """

    @property
    def fingerprint(self) -> str:
        """Hash of the content and its order; a resumed run compares it."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of labels; labels are 0..num_classes-1."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...


@dataclass(frozen=True)
class Numbered:
    """Pairs of index and record, None from `real` to `length`; errors name the index."""

    source: Source
    real: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> tuple[int, Record | None]:
        return index, self.source[index] if index < self.real else None


def image_shape(source: Source) -> tuple[int, ...]:
    """Returns the shape (H, W, 3) of record 0, which all others must share.

    Raises:
        ValueError: there are no records or record 0 is not an RGB image.
    """
    if len(source) == 0:
        raise ValueError("source: got 0 records; expected at least 1. Check data.path.")
    shape = source[0]["image"].shape
    if len(shape) != 3 or shape[2] != 3:
        raise ValueError(
            f"record 0: got an image of shape {list(shape)}; expected [H, W, 3]. "
            "Convert images to RGB where they are read."
        )
    return shape


def digits(split: Literal["train", "validation"], image_size: int) -> "Digits":
    """Opens scikit-learn's handwritten digits: 1,797 images of 8 x 8, 10 classes.

    The gray levels v = 0..16 become `round(v / 16 * 255)` (ties to even, so 8 -> 128), three
    equal channels, and every pixel a square of `image_size / 8` pixels (nearest neighbor).
    The split is fixed and stratified: a fifth of every class, to the nearest whole image, is
    kept for validation (359 images; 1,438 remain for training), in the order of the file.

    Args:
        split: which of the two disjoint parts.
        image_size: height and width in pixels, a positive multiple of 8.

    Returns:
        A source of uint8 [image_size, image_size, 3] and labels 0..9.

    Raises:
        ValueError: on an unknown split or an image size that 8 does not divide.

    Source:
        `sklearn.datasets.load_digits`, a copy of the test set of UCI "Optical Recognition of
        Handwritten Digits" (Alpaydin and Kaynak, 1998; CC BY 4.0).
    """
    if split not in ("train", "validation"):
        raise ValueError(f"split: got {split!r}; expected 'train' or 'validation'")
    if image_size < _DIGITS_SIDE or image_size % _DIGITS_SIDE:
        raise ValueError(
            f"image_size: got {image_size}; expected a positive multiple of {_DIGITS_SIDE}, "
            "because every pixel of the 8 x 8 originals becomes a whole square. "
            "Set data.image_size to 8, 16, 24, 32, ..."
        )
    # Late: scikit-learn takes a second to import and other sources do not need it.
    from sklearn.datasets import load_digits

    gray, label = load_digits(return_X_y=True)
    gray = np.rint(gray / _DIGITS_LEVELS * 255).astype(np.uint8)
    gray = gray.reshape(-1, _DIGITS_SIDE, _DIGITS_SIDE)
    label = label.astype(np.int32)
    chosen = _is_validation(label) == (split == "validation")
    gray, label = gray[chosen], label[chosen]
    content = hashlib.sha256(gray.tobytes() + label.astype("<i4").tobytes()).hexdigest()
    return Digits(
        gray=gray,
        label=label,
        image_size=image_size,
        fingerprint=f"digits/{split}/{image_size}/{content[:12]}",
    )


def _is_validation(label: np.ndarray) -> np.ndarray:
    """Marks a fifth of every class: int32 [n] -> bool [n], the same on every machine."""
    # Raw bits of PCG64 are promised never to change; `Generator.permutation` is not.
    ticket = np.random.PCG64(_SPLIT_SEED).random_raw(len(label))
    chosen = np.zeros(len(label), dtype=bool)
    for digit in range(_DIGITS_CLASSES):
        members = np.flatnonzero(label == digit)
        drawn = members[np.argsort(ticket[members], kind="stable")]
        chosen[drawn[: round(len(members) * _VALIDATION_FRACTION)]] = True
    return chosen


@dataclass(frozen=True, eq=False)
class Digits:
    """The source of `digits`: stores the 8 x 8 originals and enlarges them on access."""

    gray: np.ndarray
    label: np.ndarray
    image_size: int
    fingerprint: str
    num_classes: int = _DIGITS_CLASSES

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: int, /) -> Record:
        index = checked_index(index, len(self))
        scale = self.image_size // _DIGITS_SIDE
        enlarged = self.gray[index].repeat(scale, axis=0).repeat(scale, axis=1)
        return {"image": enlarged[:, :, None].repeat(3, axis=2), "label": int(self.label[index])}


def synthetic(image_size: int, num_classes: int, length: int, seed: int) -> "Synthetic":
    """Makes colored blobs on gradients, drawn on access: data of any size for tests and timing.

    The class decides the hue of the blob and the direction of the gray gradient behind it; the
    index decides where the blob lies and how wide it is. Labels go round: index mod num_classes.

    Args:
        image_size: height and width in pixels.
        num_classes: number of labels.
        length: number of records.
        seed: not negative; another seed gives other blobs.

    Returns:
        A source of uint8 [image_size, image_size, 3].

    Raises:
        ValueError: a size is not positive or the seed is negative.
    """
    for name, value in (
        ("image_size", image_size),
        ("num_classes", num_classes),
        ("length", length),
    ):
        if value < 1:
            raise ValueError(f"{name}: got {value}; expected at least 1")
    if seed < 0:
        raise ValueError(f"seed: got {seed}; expected 0 or more")
    return Synthetic(image_size=image_size, num_classes=num_classes, length=length, seed=seed)


@dataclass(frozen=True)
class Synthetic:
    """The source of `synthetic`: four numbers."""

    image_size: int
    num_classes: int
    length: int
    seed: int

    @property
    def fingerprint(self) -> str:
        """Hash of the parameters; "v1" changes when the recipe of the pictures does."""
        parameters = f"v1 {self.image_size} {self.num_classes} {self.length} {self.seed}"
        return f"synthetic/{hashlib.sha256(parameters.encode()).hexdigest()[:12]}"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> Record:
        index = checked_index(index, self.length)
        label = index % self.num_classes
        rng = np.random.Generator(np.random.PCG64([self.seed, index]))
        center_row, center_column, width = rng.uniform((-0.5, -0.5, 0.2), (0.5, 0.5, 0.4))

        side = (np.arange(self.image_size) + 0.5) / self.image_size * 2 - 1
        row, column = side[:, None], side[None, :]
        angle = 2 * np.pi * label / self.num_classes
        slope = np.cos(angle) * column + np.sin(angle) * row
        background = (0.5 + 0.2 * slope)[:, :, None]
        distance = (row - center_row) ** 2 + (column - center_column) ** 2
        blob = np.exp(-distance / (2 * width**2))[:, :, None]
        color = np.array(colorsys.hsv_to_rgb(label / self.num_classes, 1.0, 1.0))

        image = (1 - blob) * background + blob * color
        return {"image": np.rint(image.clip(0, 1) * 255).astype(np.uint8), "label": label}


def checked_index(index: int, length: int) -> int:
    """Rejects negative indices, which numpy would wrap around, and those past the end."""
    index = operator.index(index)
    if not 0 <= index < length:
        raise IndexError(
            f"record {index} does not exist; expected an index in 0..{length - 1}. "
            "Check the index against len(source)."
        )
    return index
