"""The autoencoder around encoder and decoder: constants, statistics, golden cases."""

import json

import jax
import numpy as np
import pytest
from flax import nnx
from support.golden_files import GOLDEN, arrays, channels_last, relative_error

from rae_dit.api import load_rae
from rae_dit.architecture import Compute, DecoderArchitecture, EncoderArchitecture
from rae_dit.models.decoder import Decoder
from rae_dit.models.encoders.siglip import SigLIP
from rae_dit.models.rae import RAE

SIZES = {"hidden_size": 8, "depth": 1, "num_heads": 1, "intermediate_size": 8}


def make_rae(*, mean=None, variance=None, decoder=True, grid=3):
    rngs = nnx.Rngs(0)
    seen = {"input_size": 12, "patch_size": 4, "position_grid": 3, "activation": "gelu_tanh"}
    encoder = SigLIP(EncoderArchitecture(family="siglip", **SIZES, **seen), Compute(), rngs=rngs)
    sizes = DecoderArchitecture(**SIZES, in_width=8, grid=grid, patch_size=5)
    back = Decoder(sizes, Compute(), rngs=rngs)
    return RAE(
        encoder,
        back if decoder else None,
        image_mean=(0.5, 0.4, 0.3),
        image_std=(0.2, 0.3, 0.4),
        latent_mean=mean,
        latent_variance=variance,
    )


def images(side=12):
    return np.random.default_rng(0).random((2, side, side, 3), np.float32)


def statistics():
    rng = np.random.default_rng(1)
    return {"mean": rng.standard_normal((3, 3, 8)), "variance": rng.random((3, 3, 8))}


def test_latents_are_tokens_on_their_grid():
    rae = make_rae()
    latent = rae.encode(images())
    assert latent.shape == (2, *rae.latent_shape) == (2, 3, 3, 8)
    np.testing.assert_array_equal(latent.reshape(2, 9, 8), rae.tokens(images()))
    assert rae.decode(latent).shape == (2, 15, 15, 3)


def test_statistics_normalise_and_are_undone():
    given = statistics()
    plain, rae = make_rae(), make_rae(**given)
    latent = rae.encode(images())
    expected = (plain.encode(images()) - given["mean"]) / np.sqrt(given["variance"] + 1e-5)
    np.testing.assert_allclose(latent, expected, atol=1e-5)
    np.testing.assert_allclose(
        rae.decode(latent), plain.decode_tokens(plain.tokens(images())), atol=1e-5
    )


def test_statistics_are_leaves_and_not_constants_of_the_program():
    leaves = jax.tree.leaves(nnx.state(make_rae(**statistics())))
    assert len(leaves) == len(jax.tree.leaves(nnx.state(make_rae()))) + 2


def test_the_encoder_sees_normalised_pixels():
    rae = make_rae()
    by_hand = (images() - np.float32([0.5, 0.4, 0.3])) / np.float32([0.2, 0.3, 0.4])
    np.testing.assert_allclose(rae.tokens(images()), rae.encoder(by_hand), atol=1e-5)


def test_other_sizes_are_resized_on_the_way_in():
    assert make_rae().encode(images(30)).shape == (2, 3, 3, 8)


def test_decoding_adds_the_image_constants():
    rae = make_rae()
    tokens = rae.tokens(images())
    by_hand = rae.decoder(tokens) * np.float32([0.2, 0.3, 0.4]) + np.float32([0.5, 0.4, 0.3])
    np.testing.assert_allclose(rae.decode_tokens(tokens), by_hand, atol=1e-6)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected both, or None for both"):
        make_rae(mean=np.zeros((3, 3, 8)))
    with pytest.raises(ValueError, match=r"latent_mean: got shape \(4, 4, 8\); expected"):
        make_rae(mean=np.zeros((4, 4, 8)), variance=np.ones((4, 4, 8)))
    with pytest.raises(
        ValueError, match=r"decoder: got one of 4x4 tokens of width .*; expected 3x3 of width 8"
    ):
        make_rae(grid=4)
    with pytest.raises(ValueError, match="decoder: got None; expected an RAE"):
        make_rae(decoder=False).decode(np.zeros((1, 3, 3, 8), np.float32))
    with pytest.raises(ValueError, match="so transpose NCHW latents first"):
        make_rae().decode(np.zeros((1, 8, 3, 3), np.float32))


@pytest.mark.parametrize("name", ["dinov2", "siglip2", "mae"])
def test_golden_latents_and_reconstructions(name):
    golden = arrays(f"rae_{name}")
    image, latent = channels_last(golden["image"]), channels_last(golden["latent"])
    size = json.loads((GOLDEN / f"rae_{name}.json").read_text())["encoder_input_size"]
    rae = load_rae(
        encoder=GOLDEN / f"rae_{name}_encoder",
        decoder=GOLDEN / f"rae_{name}_decoder",
        stats=GOLDEN / f"rae_{name}_stat.pt",
        encoder_input_size=size,
    )
    assert relative_error(rae.encode(image), latent) < 1e-5
    reconstruction = channels_last(golden["reconstruction"])
    assert relative_error(rae.decode(latent), reconstruction) < 1e-5
    assert relative_error(rae.decode(rae.encode(image)), reconstruction) < 1e-5
