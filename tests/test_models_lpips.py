"""LPIPS against the reference's numbers, and what any distance must do."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.golden_files import arrays, channels_last
from support.rule_weights import save_lpips

from rae_dit.models.lpips import max_pool, unit_length
from rae_dit.modes.reconstruct import compare
from rae_dit.weights.lpips import linear_entries, read_lpips, vgg_entries
from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.tensor_file import save_tensors


@pytest.fixture(scope="module")
def golden():
    found = arrays("lpips")
    return (channels_last(found["a"]) + 1) / 2, (channels_last(found["b"]) + 1) / 2, found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return save_lpips(tmp_path_factory.mktemp("lpips"))


@pytest.fixture(scope="module")
def lpips(files):
    graph, parameters = nnx.split(read_lpips(*files))
    return jax.jit(lambda a, b: nnx.merge(graph, parameters)(a, b))


def test_distance_is_the_reference_s(lpips, golden):
    a, b, found = golden
    np.testing.assert_allclose(lpips(a, b), found["distance"], rtol=1e-4)


def test_distance_is_symmetric_and_zero_only_for_equal_images(lpips, golden):
    a, b, _ = golden
    np.testing.assert_allclose(lpips(a, b), lpips(b, a), rtol=1e-5)
    np.testing.assert_array_equal(lpips(a, a), 0)
    assert np.all(lpips(a, b) > 0.01)


def test_unit_length_has_a_gradient_at_zero():
    gradient = jax.grad(lambda x: unit_length(x).sum())(jnp.zeros((1, 1, 1, 4)))
    assert np.isfinite(gradient).all()
    x = jnp.asarray([3.0, 0.0, 4.0]).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(unit_length(x).ravel(), [0.6, 0, 0.8], rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 3)])
def test_pooling_and_its_gradient_are_flax_s_with_ties_and_odd_sides(height, width):
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.integers(-2, 2, (2, height, width, 5)), jnp.float32)  # many ties
    y, pull_back = jax.vjp(jax.jit(max_pool), x)
    wanted, wanted_pull_back = jax.vjp(lambda x: nnx.max_pool(x, (2, 2), strides=(2, 2)), x)
    np.testing.assert_array_equal(y, wanted)
    gradient = jnp.asarray(generator.standard_normal(y.shape), jnp.float32)
    np.testing.assert_array_equal(pull_back(gradient)[0], wanted_pull_back(gradient)[0])


def test_pooling_lets_no_nan_pass_unseen():
    for place in range(4):
        x = jnp.zeros((1, 2, 2, 1)).at[0, place // 2, place % 2, 0].set(jnp.nan)
        assert np.isnan(max_pool(x)).all()


def test_bfloat16_is_close(files, golden):
    a, b = (image[:1, :16, :16] for image in golden[:2])
    distances = []
    for dtype in (jnp.float32, jnp.bfloat16):
        graph, parameters = nnx.split(read_lpips(*files, dtype=dtype))

        def both(parameters, a, b, graph=graph):
            lpips = nnx.merge(graph, parameters)
            return lpips(a, b), lpips.vgg(a)[0]

        distance, maps = jax.jit(both)(parameters, a, b)
        assert distance.dtype == jnp.float32
        assert maps.dtype == dtype
        distances.append(distance)
    np.testing.assert_allclose(*distances, rtol=0.05)
    assert not np.array_equal(*distances)


def test_small_images_are_refused(lpips):
    with pytest.raises(ValueError, match="8x8 pixels; expected at least 16"):
        lpips(np.zeros((1, 8, 8, 3)), np.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize("missing", ["features.28.weight", "lin4.model.1.weight"])
def test_a_file_that_lacks_a_tensor_is_refused(files, tmp_path, missing):
    from rae_dit.weights.tensor_file import open_tensors

    paths = []
    for path in files:
        tensors = open_tensors(path)
        kept = {name: tensors[name] for name in tensors if name != missing}
        save_tensors(tmp_path / path.name, kept)
        paths.append(tmp_path / path.name)
    with pytest.raises(WeightsError, match=f"1 missing \\({missing}\\)"):
        read_lpips(*paths)


def test_names_are_torchvision_s_and_lpips_s():
    names = [entry.keys[0] for entry in vgg_entries() if entry.path.endswith("kernel")]
    numbers = [int(name.split(".")[1]) for name in names]
    assert numbers == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]  # torchvision's vgg16
    assert [entry.keys[0] for entry in linear_entries()] == [
        f"lin{number}.model.1.weight" for number in range(5)
    ]


def test_a_reconstruction_is_compared_in_float32_whatever_the_run_s_precision(files, golden):
    graph, parameters = nnx.split(read_lpips(*files))
    a, b, _ = golden
    with jax.default_matmul_precision("bfloat16"):
        text = str(jax.make_jaxpr(compare, static_argnums=0)(graph, parameters, a, b))
    asked = re.findall(r"precision=(\S.*)", text)
    assert len(asked) >= 13  # VGG16's convolutions
    assert set(asked) == {"(Precision.HIGHEST, Precision.HIGHEST)"}
