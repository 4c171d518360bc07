"""The digit classifier on real digits, moved ones, and pictures of none."""

import numpy as np
import pytest

from rae_dit.data.sources import digits
from rae_dit.evaluation.digits import DigitClassifier, pixel_features


def _real(split, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """All digits of a split: f32 [n, H, W, 3] in [0, 1] and i32 [n]."""
    source = digits(split, image_size)
    records = [source[i] for i in range(len(source))]
    images = np.stack([record["image"] for record in records]).astype(np.float32) / 255
    return images, np.array([record["label"] for record in records], np.int32)


@pytest.fixture(scope="module")
def classifier() -> DigitClassifier:
    return DigitClassifier.fit(*_real("train", 8))


@pytest.fixture(scope="module")
def held_out() -> tuple[np.ndarray, np.ndarray]:
    return _real("validation", 8)


def test_reads_more_than_99_percent_of_held_out_digits(classifier, held_out):
    images, labels = held_out
    assert len(labels) > 350
    assert classifier.accuracy(images, labels) > 0.99


def test_size_of_the_images_does_not_matter(classifier, held_out):
    large, _labels = _real("validation", 32)
    np.testing.assert_array_equal(classifier.predict(large), classifier.predict(held_out[0]))


def test_reads_digits_moved_by_a_pixel(classifier, held_out):
    """What the moved training copies are for; a classifier without them reads 57 %."""
    images, labels = held_out
    moved = np.zeros_like(images)
    moved[:, :, 1:] = images[:, :, :-1]
    assert classifier.accuracy(moved, labels) > 0.95


def test_accuracy_is_the_fraction_that_agrees(classifier, held_out):
    images, _ = held_out
    read = classifier.predict(images)
    wrong = np.where(np.arange(len(read)) % 4 == 0, (read + 1) % 10, read)
    assert classifier.accuracy(images, wrong) == np.mean(np.arange(len(read)) % 4 != 0)
    assert read.dtype == np.int32


def test_pictures_without_digits_score_near_chance(classifier):
    noise = np.random.default_rng(0).uniform(size=(500, 8, 8, 3))
    assert classifier.accuracy(noise, np.arange(500) % 10) < 0.2


def test_features_are_grey_means_in_reading_order_clipped_before_pooling():
    image = np.zeros((1, 16, 16, 3))
    image[0, 2:4, 4:6] = [0.3, 0.6, 0.9]  # block (row 1, column 2)
    image[0, 0, 0] = 9.0  # shown as 1, so a quarter of its block
    image[0, 14, 14] = -5.0  # shown as 0
    features = pixel_features(image)
    assert features.shape == (1, 64)
    assert features.dtype == np.float64
    expected = np.zeros(64)
    expected[8 + 2], expected[0] = 0.6, 0.25
    np.testing.assert_allclose(features[0], expected, atol=1e-12)


def test_same_training_digits_give_the_same_classifier(held_out):
    images, labels = _real("train", 8)
    first, second = (DigitClassifier.fit(images[:300], labels[:300]) for _ in range(2))
    np.testing.assert_array_equal(first.predict(held_out[0]), second.predict(held_out[0]))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 12, 12, 3)), "multiple of size 8"),
        (np.zeros((2, 8, 8, 1)), r"shape \(2, 8, 8, 1\); expected \[n, H, W, 3\]"),
        (np.full((2, 8, 8, 3), np.nan), "got NaN or infinity"),
        (np.zeros((0, 8, 8, 3)), "got no images"),
    ],
)
def test_bad_images_are_named(classifier, images, message):
    with pytest.raises(ValueError, match=message):
        classifier.predict(images)


@pytest.mark.parametrize("labels", [np.zeros(3, int), np.zeros(2), np.zeros((2, 1), int)])
def test_bad_labels_are_named(classifier, labels):
    with pytest.raises(ValueError, match=r"expected integers \[2\]"):
        classifier.accuracy(np.zeros((2, 8, 8, 3)), labels)


def test_one_class_is_no_training_set():
    with pytest.raises(ValueError, match="1 different labels; expected at least 2"):
        DigitClassifier.fit(np.zeros((4, 8, 8, 3)), np.zeros(4, int))
