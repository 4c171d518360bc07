"""Feature extractors: features do not depend on batches, devices or where images come from."""

import jax
import numpy as np
import pytest
from flax import nnx

from rae_dit.data.transforms import to_float, to_uint8
from rae_dit.evaluation.digits import DigitClassifier, pixel_features
from rae_dit.evaluation.feature_extractors import DigitFeatures, InceptionExtractor
from rae_dit.models.inception import InceptionFeatures


class Pixels(nnx.Module):
    """Shows what the network was given."""

    def __init__(self):
        self.one = nnx.Param(np.float32(1))

    def __call__(self, image):
        flat = image.reshape(len(image), -1).astype(np.float32)
        return InceptionFeatures(self.one[...] * flat, flat[:, :2], -flat[:, :3])


def extractor(batch_size=5):
    return InceptionExtractor.of(Pixels(), batch_size=batch_size, identity="x")


def test_every_level_comes_back_from_a_float():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(to_float(levels)), levels)


def test_the_network_sees_whole_numbers_cut_off():
    images = np.array([-0.5, 0.0, 0.49999, 0.999, 1.0, 7.0], np.float32)
    seen = extractor()(np.tile(images[:, None, None, None], (1, 2, 2, 3))).pool
    np.testing.assert_array_equal(seen[:, 0], [0, 0, 127, 254, 255, 255])


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_batches_change_nothing(batch_size):
    images = np.random.default_rng(0).random((13, 4, 4, 3), np.float32)
    found = extractor(batch_size)(images)
    whole = to_uint8(images).reshape(13, -1)
    np.testing.assert_array_equal(found.pool, whole)
    np.testing.assert_array_equal(found.spatial, whole[:, :2])
    np.testing.assert_array_equal(found.logits, -whole[:, :3].astype(np.float32))


def test_all_devices_of_the_process_share_a_batch():
    made = extractor(5)
    assert made.batch_size == 8 == jax.local_device_count()
    assert len(jax.device_put(np.zeros((8, 1)), made.rows).addressable_shards[0].data) == 1


def test_digits_are_seen_as_they_are():
    images = np.random.default_rng(1).random((12, 8, 8, 3), np.float32)
    classifier = DigitClassifier.fit(images, np.arange(12) % 3)
    found = DigitFeatures(classifier, "x")(images)
    np.testing.assert_array_equal(found.pool, pixel_features(images))
    np.testing.assert_array_equal(found.classes, classifier.predict(images))
