"""Inception against torch-fidelity's numbers, and what sets it apart from other Inceptions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from flax import nnx
from support.golden_files import arrays, channels_last, relative_error
from support.rule_weights import inception_tensors

from rae_dit.models.inception import InceptionV3, pool
from rae_dit.models.inception_blocks import AVERAGE
from rae_dit.models.resize import resize_like_tensorflow1
from rae_dit.weights.inception import read_inception


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "weights.npz"
    np.savez(path, **inception_tensors())
    return read_inception(path)


@pytest.fixture(scope="module")
def outputs(inception):
    """Outputs of all blocks, and the features, of the golden images."""
    graph, state = nnx.split(inception)

    @jax.jit
    def run(state, image):
        model = nnx.merge(graph, state)
        stages = dict(model.stages(image))
        means = {name: jnp.mean(x, axis=(1, 2)) for name, x in stages.items()}
        return means, model.Mixed_6d.branch1x1(stages["Mixed_6c"]), model(image)

    return run(state, channels_last(arrays("inception")["image_uint8"]))


@pytest.mark.parametrize(
    ("block", "key"), [("stem_1", "f64"), ("stem_2", "f192"), ("Mixed_6e", "f768")]
)
def test_every_depth_is_the_reference_s(outputs, block, key):
    assert relative_error(outputs[0][block], arrays("inception")[key]) < 1e-5


def test_features_and_logits_are_the_reference_s(outputs, inception):
    golden, features = arrays("inception"), outputs[2]
    np.testing.assert_allclose(features.pool, golden["f2048"], rtol=1e-3, atol=1e-5)
    assert relative_error(features.pool, golden["f2048"]) < 1e-5
    assert relative_error(features.logits, golden["logits_unbiased"]) < 1e-5
    assert relative_error(features.logits + inception.fc.bias[...], golden["logits"]) < 1e-5


def test_spatial_features_are_the_first_channels_of_mixed_6_conv_in_raster_order(outputs):
    _, branch, features = outputs
    assert branch.shape == (2, 17, 17, 192)
    assert features.spatial.shape == (2, 2023)
    rows = np.asarray(features.spatial).reshape(2, 17, 17, 7)
    np.testing.assert_array_equal(rows, branch[..., :7])
    assert len(np.unique(rows)) > 500  # not a constant


@pytest.mark.parametrize("size", [(96, 128), (299, 299), (256, 256), (512, 40), (8, 8)])
def test_resize_is_that_of_tensorflow_1(size):
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3)).astype(np.float32)
    reference = tf.compat.v1.image.resize_bilinear(image, (299, 299), align_corners=False)
    np.testing.assert_allclose(resize_like_tensorflow1(image, 299), reference, atol=1e-2)
    modern = tf.image.resize(image, (299, 299))
    if size != (299, 299):
        assert np.abs(np.asarray(modern) - reference).max() > 1


def test_average_pool_of_a_constant_is_that_constant():
    """Zeros counted at the border would darken it."""
    np.testing.assert_allclose(pool(jnp.full((1, 5, 4, 2), 3.0), AVERAGE), 3.0, rtol=1e-6)


def test_true_size():
    shapes = nnx.state(nnx.eval_shape(InceptionV3))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == sum(tensor.size for tensor in inception_tensors().values() if tensor.ndim)
