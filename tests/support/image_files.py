"""Small image files, and the laws that every reader of such files keeps."""

import io
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rae_dit.data.files import Files, Images
from rae_dit.data.pipeline import train_batches

TRAIN: dict[str, Any] = {
    "batch_size": 4,
    "seed": 0,
    "start_step": 0,
    "num_workers": 0,
    "flip": True,
}


def encoded(number: int, kind: str = "PNG", size: tuple[int, int] = (31, 24)) -> bytes:
    """A picture of its own for every number, as the bytes of a file."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def images_of(files: Files, *, classes: int = 3, **changes: Any) -> Images:
    """A source of 16 pixels that allows some damage."""
    settings: dict[str, Any] = {"image_size": 16, "crop": "adm_center", "max_bad_share": 0.5}
    return Images(files=files, num_classes=classes, **(settings | changes))


def take(source: Images, count: int, **changes: Any) -> list[dict[str, np.ndarray]]:
    """The first batches of a training stream."""
    with train_batches(source, **(TRAIN | changes)) as stream:
        return list(itertools.islice(stream, count))


def assert_same(left: list, right: list) -> None:
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys() == {"image", "label"}
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def check_reader(files: Files, wanted: list[tuple[bytes, int]]) -> None:
    """A reader gives the wanted contents and labels, in a worker too, each under its own name."""
    copy = pickle.loads(pickle.dumps(files))
    assert len(files) == len(copy) == len(wanted)
    for index, (content, label) in enumerate(wanted):
        assert files.read(index) == copy.read(index) == (content, label)
        assert type(files.read(index)[1]) is int
    assert len({files.name(index) for index in range(len(files))}) == len(files)
    source = images_of(files)
    assert source.fingerprint == images_of(copy).fingerprint
    for outside in (-1, len(files)):
        with pytest.raises(IndexError, match=f"record {outside} does not exist"):
            source[outside]


def check_stream(files: Files) -> None:
    """The stream goes on at any step, and with workers, as if it had never stopped."""
    source = images_of(files)
    whole = take(source, 7)
    assert whole[0]["image"].shape == (4, 16, 16, 3)
    for step in range(1, 7):
        assert_same(take(source, 1, start_step=step), whole[step : step + 1])
    assert_same(take(source, 4, start_step=3, num_workers=2), whole[3:])
