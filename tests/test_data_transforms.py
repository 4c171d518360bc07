"""Laws of the arithmetic on one image and of the step from record to example."""

import pickle

import numpy as np
import pytest

from rae_dit.data.transforms import Prepare, flip_example, random_flip, to_float, to_uint8


def _image(dtype=np.uint8):
    return np.arange(4 * 5 * 3, dtype=dtype).reshape(4, 5, 3)


def _rng(first: float) -> np.random.Generator:
    """A generator whose first number is on the wanted side of one half."""
    return next(
        np.random.default_rng(seed)
        for seed in range(99)
        if (np.random.default_rng(seed).random() < 0.5) == (first < 0.5)
    )


def test_to_float_maps_the_ends_exactly_and_keeps_all_256_levels():
    levels = to_float(np.arange(256, dtype=np.uint8))
    assert levels.dtype == np.float32
    assert levels[0] == 0.0
    assert levels[255] == 1.0
    np.testing.assert_array_equal(np.rint(levels * 255), np.arange(256))
    np.testing.assert_allclose(levels, np.arange(256) / 255, rtol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_to_float_refuses_what_is_not_uint8(dtype):
    with pytest.raises(ValueError, match=np.dtype(dtype).name):
        to_float(_image(dtype))


def test_flip_mirrors_columns_and_nothing_else():
    image = _image()
    flipped = random_flip(image, _rng(0.1))
    for column in range(5):
        np.testing.assert_array_equal(flipped[:, column], image[:, 4 - column])
    assert flipped.flags.c_contiguous
    np.testing.assert_array_equal(random_flip(image, _rng(0.9)), image)


def test_flip_happens_half_of_the_time():
    rng, image = np.random.default_rng(0), _image()
    flips = sum(not np.array_equal(random_flip(image, rng), image) for _ in range(1000))
    assert 440 < flips < 560  # four standard deviations


def test_flip_draws_exactly_one_number():
    rng, twin = np.random.default_rng(0), np.random.default_rng(0)
    random_flip(_image(), rng)
    twin.random()
    assert rng.random() == twin.random()


def test_flip_example_touches_the_image_only():
    example = {"image": _image(), "label": np.int32(3)}
    flipped = flip_example(example, _rng(0.1))
    np.testing.assert_array_equal(flipped["image"], _image()[:, ::-1])
    assert flipped["label"] == 3
    np.testing.assert_array_equal(example["image"], _image())


def test_prepare_makes_an_example_of_a_record():
    prepare = pickle.loads(pickle.dumps(Prepare((4, 5, 3), num_classes=4, weighted=False)))
    example = prepare((0, {"image": _image(), "label": 3}))
    assert example.keys() == {"image", "label"}
    np.testing.assert_array_equal(example["image"], _image())
    assert example["image"].dtype == np.uint8
    assert example["label"] == 3
    assert example["label"].dtype == np.int32


def test_prepare_makes_weightless_zeros_of_nothing():
    prepare = Prepare((4, 5, 3), num_classes=4, weighted=True)
    padding = prepare((9, None))
    assert padding["weight"] == 0
    assert padding["label"] == 0
    assert not padding["image"].any()
    example = prepare((0, {"image": _image(), "label": 3}))
    assert example["weight"] == 1
    for name in ("image", "label", "weight"):
        assert padding[name].dtype == example[name].dtype
        assert padding[name].shape == example[name].shape


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (_image(np.float32), 0, r"record 7: .*float32 \[4, 5, 3\]"),
        (_image()[:3], 0, r"record 7: .*uint8 \[3, 5, 3\]"),
        (_image()[:, :, 0], 0, r"record 7: .*uint8 \[4, 5\]"),
        (_image(), 4, r"record 7: got label 4; expected 0\.\.3"),
        (_image(), -1, r"record 7: got label -1"),
    ],
)
def test_prepare_names_the_record_that_is_wrong(image, label, message):
    with pytest.raises(ValueError, match=message):
        Prepare((4, 5, 3), num_classes=4, weighted=False)((7, {"image": image, "label": label}))


@pytest.mark.parametrize(
    ("value", "level"),
    [(0.9999, 254), (0.5, 127), (0.0039, 0), (0.004, 1), (1.0, 255), (1.5, 255), (-0.2, 0)],
)
def test_floats_are_truncated_to_levels_not_rounded(value, level):
    """255 times the value, by hand: 254.97, 127.5, 0.99, 1.02, 255 and what is clipped."""
    image = np.full((2, 2, 3), value, np.float32)
    np.testing.assert_array_equal(to_uint8(image), np.full((2, 2, 3), level, np.uint8))
