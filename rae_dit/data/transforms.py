"""Transforms from records to examples, in numpy.

Classes and functions are at module level because worker processes unpickle them by name.
"""

from dataclasses import dataclass

import numpy as np

from rae_dit.data.sources import Record

Example = dict[str, np.ndarray | np.generic]

FLIP_CHANCE = 0.5


def to_float(image: np.ndarray) -> np.ndarray:
    """Scales an eight bit image to the unit interval.

    Args:
        image: uint8 [..., 3], 0..255.

    Returns:
        float32 of the same shape, in [0, 1]; 0 -> 0.0 and 255 -> 1.0 exactly.

    Raises:
        ValueError: `image` is not uint8 (a float image may already be scaled).
    """
    if image.dtype != np.uint8:
        raise ValueError(
            f"to_float: got an image of dtype {image.dtype}; expected uint8 with values 0..255. "
            "Convert the image to uint8 where it is read."
        )
    # Not a product with 1/255: 255 -> 1.0 would not be exact. In one pass: batches are large.
    return np.divide(image, np.float32(255), dtype=np.float32)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Converts an image to 8 bits: clipped to [0, 1], times 255, truncated (not rounded).

    Args:
        image: float32 of any shape.

    Returns:
        uint8 of the same shape. All 256 levels come back from `to_float` as they were.

    Source:
        bytetriper/RAE, `sample_ddp.py`, and ADM's and DiT's before it.
    """
    return (np.clip(image, 0, 1) * np.float32(255)).astype(np.uint8)


def random_flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrors an image left to right with probability one half.

    Args:
        image: any dtype [H,W,C].
        rng: source of the coin; exactly one number is drawn from it.

    Returns:
        The image itself or a contiguous mirrored copy, same dtype and shape.
    """
    if rng.random() < FLIP_CHANCE:
        # A view with negative strides would leave a batch of one non-contiguous.
        return np.ascontiguousarray(image[:, ::-1])
    return image


def flip_example(example: Example, rng: np.random.Generator) -> Example:
    """Applies `random_flip` to the image of an example."""
    return example | {"image": random_flip(np.asarray(example["image"]), rng)}


@dataclass(frozen=True)
class Prepare:
    """Checks a numbered record and converts it to an example; None becomes zeros.

    A record that is not what its source promised stops the run with its index: to leave it out
    would shift the stream. (Damaged image files are not wrong but replaced: see bad_images.py.)

    Attributes:
        shape: (H, W, 3) of every image.
        num_classes: labels are 0..num_classes-1.
        weighted: add "weight", 1 for a record and 0 for None.
    """

    shape: tuple[int, ...]
    num_classes: int
    weighted: bool

    def __call__(self, numbered: tuple[int, Record | None]) -> Example:
        """Returns {"image": uint8 [H,W,3], "label": int32 []} and perhaps "weight"."""
        index, record = numbered
        if record is None:
            example: Example = {"image": np.zeros(self.shape, np.uint8), "label": np.int32(0)}
        else:
            self._check(index, record)
            example = {"image": record["image"], "label": np.int32(record["label"])}
        if self.weighted:
            example["weight"] = np.float32(record is not None)
        return example

    def _check(self, index: int, record: Record) -> None:
        image, label = record["image"], record["label"]
        if image.dtype != np.uint8 or image.shape != self.shape:
            raise ValueError(
                f"record {index}: got an image of {image.dtype} {list(image.shape)}; expected "
                f"uint8 {list(self.shape)} like record 0. "
                f"Correct or remove record {index} of the source."
            )
        if not 0 <= label < self.num_classes:
            raise ValueError(
                f"record {index}: got label {label}; expected 0..{self.num_classes - 1}. "
                f"Correct record {index} of the source, or data.num_classes."
            )
