"""Laws of the records that need no download."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

from rae_dit.data.sources import Numbered, Source, digits, image_shape, synthetic


def _rows(source: Source) -> np.ndarray:
    """Label and 64 grey values of every record of a digits source of size 8."""
    return np.array([[r["label"], *r["image"][:, :, 0].ravel()] for r in _records(source)])


def _records(source: Source) -> list:
    return [source[index] for index in range(len(source))]


def test_the_parts_of_digits_are_the_whole_once_with_rounded_levels():
    grey, label = load_digits(return_X_y=True)
    level = [round(v / 16 * 255) for v in range(17)]
    assert level[0] == 0
    assert level[8] == 128
    assert level[16] == 255
    whole = np.column_stack([label, np.array(level)[grey.astype(int)]])
    parts = np.concatenate([_rows(digits("train", 8)), _rows(digits("validation", 8))])
    np.testing.assert_array_equal(
        parts[np.lexsort(parts.T)], whole[np.lexsort(whole.T)].astype(int)
    )


def test_a_fifth_of_every_digit_is_for_validation():
    train = np.bincount([r["label"] for r in _records(digits("train", 8))])
    validation = np.bincount([r["label"] for r in _records(digits("validation", 8))])
    assert (train.sum(), validation.sum()) == (1438, 359)
    assert len(train) == len(validation) == 10
    assert (np.abs(validation - 0.2 * (train + validation)) <= 0.5).all()


def test_the_split_does_not_follow_the_order_of_the_file():
    grey, label = load_digits(return_X_y=True)
    kept = {tuple(row) for row in _rows(digits("validation", 8)).tolist()}
    level = np.rint(grey / 16 * 255).astype(int)
    rows = np.column_stack([label, level]).tolist()
    where = np.array([index for index, row in enumerate(rows) if tuple(row) in kept])
    thirds = np.bincount(where * 3 // len(label), minlength=3)
    assert (thirds > 80).all(), thirds


def test_digits_are_the_same_on_every_machine_and_forever():
    assert digits("train", 32).fingerprint == "digits/train/32/8655e7bde540"
    assert digits("validation", 32).fingerprint == "digits/validation/32/b49cd19796e3"


def test_a_digit_is_enlarged_to_squares_and_grey():
    small, large = digits("train", 8)[5], digits("train", 32)[5]
    assert large["image"].shape == (32, 32, 3)
    assert large["image"].dtype == np.uint8
    assert small["label"] == large["label"]
    assert isinstance(large["label"], int)
    squares = np.kron(small["image"][:, :, 0], np.ones((4, 4), np.uint8))
    for channel in range(3):
        np.testing.assert_array_equal(large["image"][:, :, channel], squares)


@pytest.mark.parametrize("image_size", [0, -8, 4, 12, 33])
def test_digits_refuse_a_size_that_is_no_multiple_of_eight(image_size):
    with pytest.raises(ValueError, match=rf"image_size: got {image_size}; .*multiple of 8"):
        digits("train", image_size)


def test_digits_refuse_an_unknown_split():
    with pytest.raises(ValueError, match=r"'test'.*'train' or 'validation'"):
        digits("test", 8)  # type: ignore[arg-type]


def test_synthetic_records_depend_on_seed_and_index_only():
    source, again = synthetic(16, 5, 40, seed=3), synthetic(16, 5, 40, seed=3)
    np.testing.assert_array_equal(source[7]["image"], again[7]["image"])
    assert not np.array_equal(source[7]["image"], source[12]["image"])  # same class, other index
    assert not np.array_equal(source[7]["image"], synthetic(16, 5, 40, seed=4)[7]["image"])
    assert source[7]["image"].shape == (16, 16, 3)
    assert source[7]["image"].dtype == np.uint8


def test_synthetic_labels_go_round():
    assert [r["label"] for r in _records(synthetic(4, 3, 7, seed=0))] == [0, 1, 2, 0, 1, 2, 0]


def test_synthetic_classes_can_be_told_apart():
    source = synthetic(16, 10, 200, seed=0)
    image = np.array([r["image"].ravel() for r in _records(source)], dtype=float)
    label = np.array([r["label"] for r in _records(source)])
    centre = np.array([image[:100][label[:100] == c].mean(axis=0) for c in range(10)])
    guess = ((image[100:, None] - centre) ** 2).sum(axis=-1).argmin(axis=1)
    assert (guess == label[100:]).mean() > 0.9


def test_every_parameter_of_synthetic_is_in_its_fingerprint():
    variants = [(8, 5, 40, 3), (16, 4, 40, 3), (16, 5, 41, 3), (16, 5, 40, 4), (16, 5, 40, 3)]
    assert len({synthetic(*parameters).fingerprint for parameters in variants}) == 5
    assert synthetic(16, 5, 40, 3).fingerprint == synthetic(16, 5, 40, 3).fingerprint


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ((0, 5, 40, 3), "image_size: got 0"),
        ((16, 0, 40, 3), "num_classes: got 0"),
        ((16, 5, 0, 3), "length: got 0"),
        ((16, 5, 40, -1), "seed: got -1"),
    ],
)
def test_synthetic_refuses_impossible_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        synthetic(*parameters)


@pytest.mark.parametrize("source", [digits("train", 8), synthetic(8, 10, 30, seed=0)])
def test_every_source_keeps_the_protocol(source: Source):
    assert source.num_classes == 10
    for outside in (-1, len(source)):
        with pytest.raises(IndexError, match=f"record {outside} does not exist"):
            source[outside]
    copy = pickle.loads(pickle.dumps(source))  # as a worker gets it
    assert len(copy) == len(source)
    assert copy.fingerprint == source.fingerprint
    np.testing.assert_array_equal(copy[3]["image"], source[3]["image"])
    assert image_shape(source) == (8, 8, 3)


def test_numbered_counts_and_ends_in_nothing():
    numbered = Numbered(synthetic(8, 10, 5, seed=0), real=3, length=6)
    assert len(numbered) == 6
    pairs = [numbered[index] for index in range(6)]
    assert [index for index, _ in pairs] == [0, 1, 2, 3, 4, 5]
    assert [record is None for _, record in pairs] == [False] * 3 + [True] * 3


class _Grey:
    """A source of images without channels; `length` 0 makes it empty."""

    fingerprint, num_classes = "grey", 2

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /):
        return {"image": np.zeros((4, 4), np.uint8), "label": 0}


@pytest.mark.parametrize(("length", "message"), [(0, "0 records"), (2, r"\[4, 4\].*\[H, W, 3\]")])
def test_image_shape_refuses_empty_and_grey_sources(length, message):
    with pytest.raises(ValueError, match=message):
        image_shape(_Grey(length))
