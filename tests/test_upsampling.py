"""A decoder with larger patches than the encoder's: more pixels from the same tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.small_run import small_config

import rae_dit
from rae_dit.config import ConfigError, from_config_dict
from rae_dit.models.resize import resize_bicubic
from rae_dit.sampling import codec
from rae_dit.sampling.latents import sample_latents
from rae_dit.setup import models, weights
from rae_dit.setup.objectives import make_task
from rae_dit.setup.weights import Model
from rae_dit.training.sharding import make_mesh
from rae_dit.weights.__main__ import write_decoder

TWICE = {"decoder.patch_size": 4, "data.image_size": 16, "encoder.depth": 1, "decoder.depth": 1}


def rae_of(config) -> Model:
    return weights.place_rae(config, make_mesh(1, jax.devices()[:1]), decoder=True)


def test_sixteen_pixels_go_through_the_latent_of_eight():
    rae = rae_of(small_config(**TWICE))
    image = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
    latent = codec.encode(*rae, image)
    assert latent.shape == (2, 4, 4, 16)
    small = resize_bicubic(image, 8, 8)
    np.testing.assert_allclose(latent, codec.encode(*rae, small), atol=1e-5)
    assert codec.decode(*rae, latent).shape == image.shape
    assert codec.reconstruct(*rae, image).shape == image.shape


def test_stage_1_compares_the_large_images():
    config = small_config(**TWICE, objective="reconstruction")
    objective = make_task(config).objective
    params = nnx.to_pure_dict(nnx.state(models.make_decoder(config, nnx.Rngs(0))))
    frozen = make_task(config).load_frozen(make_mesh(1, jax.devices()[:1]))
    image = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
    batch = {"image": image, "label": jnp.zeros(2, jnp.int32)}
    example = objective.sample_inputs(frozen, batch, jax.random.key(1))
    assert jax.tree.leaves(example["tokens"])[0].shape == (2, 16, 16)
    loss, _ = objective.loss(params, frozen, example)
    painted = nnx.merge(rae_of(config).graph, rae_of(config).parameters | {"decoder": params})
    error = jnp.abs(painted.decode_tokens(example["tokens"]) - image).mean((1, 2, 3))
    np.testing.assert_allclose(loss, error, rtol=1e-5)


def test_a_ddt_of_the_small_images_samples_the_large_ones():
    large, small = small_config(**TWICE), small_config(**{"encoder.depth": 1})
    assert models.latent_shift(large) == models.latent_shift(small)
    shapes = [
        jax.tree.map(
            jnp.shape, nnx.to_pure_dict(nnx.state(models.abstract(models.make_ddt, config)))
        )
        for config in (large, small)
    ]
    assert shapes[0] == shapes[1]  # one checkpoint serves both
    ddt = models.make_ddt(small, nnx.Rngs(0))
    noise = jax.random.normal(jax.random.key(0), (2, 4, 4, 16))
    latents = sample_latents(ddt, noise, np.array([0, 3]), steps=3, shift=1.0)
    assert codec.decode(*rae_of(large), latents).shape == (2, 16, 16, 3)


def test_it_goes_out_and_comes_back(tmp_path):
    config = small_config(**TWICE)
    graph, parameters = rae_of(config)
    rae = nnx.merge(graph, parameters)
    write_decoder(rae.decoder, tmp_path / "decoder.pt", config.decoder.pixels)
    again = rae_dit.api.load_decoder(tmp_path / "decoder.pt")
    assert (again.grid, again.patch_size) == (4, 4)
    tokens = jax.random.normal(jax.random.key(0), (1, 16, 16))
    np.testing.assert_allclose(again(tokens), rae.decoder(tokens), atol=1e-5)
    named = small_config(**TWICE, **{"decoder.pretrained": str(tmp_path / "decoder.pt")})
    found = rae_of(named).parameters["decoder"]
    jax.tree.map(np.testing.assert_array_equal, found, parameters["decoder"])
    with pytest.raises(ConfigError, match=r"^decoder\.patch_size: got 2; expected 4, which "):
        rae_of(
            small_config(**{"decoder.pretrained": str(tmp_path / "decoder.pt"), "encoder.depth": 1})
        )


@pytest.mark.parametrize("name", ["rae_dino_upsample", "dit_dino_upsample"])
def test_the_true_sizes_are_512_pixels_from_256_tokens(name):
    module = __import__(f"configs.{name}", fromlist=["get_config"])
    config = from_config_dict(module.get_config())
    decoder = models.abstract(models.make_decoder, config)
    assert decoder.grid**2 == 256
    graph, parameters = nnx.split(decoder)
    tokens = jax.ShapeDtypeStruct((1, 256, 768), jnp.float32)
    image = jax.eval_shape(lambda p, x: nnx.merge(graph, p)(x), parameters, tokens)
    assert image.shape == (1, 512, 512, 3)
    assert models.latent_shift(config) == pytest.approx(6.928, abs=1e-3)


def test_pixels_that_the_decoder_does_not_paint_are_refused():
    with pytest.raises(
        ConfigError, match=r"^data\.image_size: got 8; expected 16 = decoder\.patch"
    ):
        small_config(**{"decoder.patch_size": 4})
