"""The three encoders, by law, by golden files and against transformers."""

import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from support.golden_files import GOLDEN, arrays, relative_error
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTMAEConfig,
    ViTMAEModel,
)

from rae_dit.api import load_rae
from rae_dit.architecture import Compute, EncoderArchitecture
from rae_dit.config.models import EncoderConfig
from rae_dit.models.encoders import FAMILIES, find_family, make_encoder
from rae_dit.models.encoders.dinov2 import DINOV2
from rae_dit.models.encoders.dinov3 import DINOV3
from rae_dit.models.encoders.mae import MAE
from rae_dit.models.encoders.siglip import SIGLIP
from rae_dit.models.mlp import gelu_exact, gelu_tanh
from rae_dit.weights.huggingface import read_encoder

SIZES = {
    "patch_size": 4,
    "hidden_size": 16,
    "depth": 3,
    "num_heads": 2,
    "intermediate_size": 24,
    "position_grid": 3,
}
TORCH = {
    "patch_size": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 20,
}
REGISTERS = {"dinov2": 4, "dinov3": 4, "siglip": 0, "mae": 0}
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def architecture(family, **changes):
    names = ("activation", "eps", "layer_scale", "key_bias")
    fixed = {name: getattr(family, name) for name in names}
    sizes = SIZES | {"input_size": 12, "num_registers": REGISTERS[family.name]}
    return EncoderArchitecture(family=family.name, **(fixed | sizes | changes))


def encoder(family, *, compute=Compute(), **changes):
    return make_encoder(architecture(family, **changes), compute, rngs=nnx.Rngs(0))


def images(side, batch=2):
    return np.random.default_rng(side).standard_normal((batch, side, side, 3)).astype(np.float32)


@families
def test_tokens_have_mean_0_and_variance_1(family):
    tokens = encoder(family)(images(12))
    assert tokens.shape == (2, 9, 16)
    assert tokens.dtype == jnp.float32
    np.testing.assert_allclose(tokens.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(tokens.var(axis=-1), 1, atol=1e-3)


def test_every_family_has_its_own_gelu_eps_and_layer_scale():
    found = {}
    for family in FAMILIES:
        model = encoder(family)
        block = model.trunk.blocks
        assert block.norm1.eps == block.norm2.eps == model.norm.eps
        scaled = block.scale1 is not None and block.scale2 is not None
        found[family.name] = (block.mlp.activation, model.norm.eps, scaled)
    assert found == {
        "dinov2": (gelu_exact, 1e-6, True),
        "dinov3": (gelu_exact, 1e-5, True),
        "siglip": (gelu_tanh, 1e-6, False),
        "mae": (gelu_exact, 1e-12, False),
    }


def test_the_config_knows_the_same_families():
    assert typing.get_args(EncoderConfig.__annotations__["family"]) == tuple(
        family.name for family in FAMILIES
    )
    with pytest.raises(ValueError, match=r"encoder\.family: got 'clip'; expected one of 'dinov2'"):
        find_family("clip")


def test_block_outputs_are_the_tokens_of_a_shallower_encoder():
    # An encoder of the first block alone, whose last norm is that of the whole.
    model, shallow = encoder(DINOV2), encoder(DINOV2, depth=1)
    first, last, again = model.block_outputs(images(12), (0, 2, 0))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(model.norm(last), model(images(12)), atol=2e-6)
    state = nnx.to_pure_dict(nnx.state(model))
    state["trunk"]["blocks"] = jax.tree.map(lambda leaf: leaf[:1], state["trunk"]["blocks"])
    nnx.update(shallow, state)
    np.testing.assert_allclose(model.norm(first), shallow(images(12)), atol=2e-6)


@families
def test_scan_is_the_loop(family):
    scanned, unrolled = (
        encoder(family)(images(12)),
        encoder(family, compute=Compute(scan_layers=False))(images(12)),
    )
    np.testing.assert_allclose(scanned, unrolled, atol=2e-6)


@pytest.mark.parametrize("remat", ["dots", "full"])
@pytest.mark.parametrize("scan_layers", [True, False])
def test_remat_recomputes_the_same_gradient(remat, scan_layers):
    def gradient(remat):
        graph, parameters = nnx.split(
            encoder(MAE, depth=2, compute=Compute(remat=remat, scan_layers=scan_layers))
        )

        def loss(parameters):
            return jnp.sum(nnx.merge(graph, parameters)(images(12))[..., 0] ** 2)

        return str(jax.make_jaxpr(jax.grad(loss))(parameters)), jax.jit(jax.grad(loss))(parameters)

    (plain_program, plain), (program, recomputed) = gradient("none"), gradient(remat)
    assert "remat" in program
    assert "remat" not in plain_program
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), plain, recomputed)


def test_the_position_table_is_interpolated_only_to_another_grid():
    table = encoder(SIGLIP).position[...]
    model = encoder(SIGLIP, input_size=20)
    assert model.embed_tokens(jnp.zeros((1, 25, 16))).shape == (1, 25, 16)
    np.testing.assert_array_equal(encoder(SIGLIP).embed_tokens(jnp.zeros((1, 9, 16)))[0], table)


def test_a_size_that_patches_do_not_tile_is_refused():
    with pytest.raises(ValueError, match=r"input_size: got 384; expected .* 14 such as 378 or 392"):
        encoder(SIGLIP, input_size=384, patch_size=14)
    with pytest.raises(ValueError, match=r"got shape \(16, 16, 3\); expected \(12, 12, 3\)"):
        encoder(SIGLIP)(images(16))
    with pytest.raises(ValueError, match="num_heads: got 3; expected a divisor of the width 16"):
        encoder(SIGLIP, num_heads=3)


@pytest.mark.parametrize("name", ["dinov2", "siglip2", "mae"])
def test_golden_tokens(name):
    golden = arrays(f"rae_{name}")
    image = golden["image"].transpose(0, 2, 3, 1)
    rae = load_rae(
        encoder=GOLDEN / f"rae_{name}_encoder", encoder_input_size=56 if name == "dinov2" else 64
    )
    assert relative_error(rae.tokens(image), golden["tokens"]) < 1e-5


def shake(model):
    """Random weights everywhere, so that no parameter can be ignored unseen."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("side", [12, 20, 36])
@families
def test_equals_transformers_at_three_sizes(family, side, tmp_path):
    noise = torch.arange((side // 4) ** 2).float().expand(2, -1)
    pixels = torch.tensor(images(side)).permute(0, 3, 1, 2)
    if family is DINOV2:
        config = Dinov2WithRegistersConfig(**TORCH, mlp_ratio=2)
        model, first, arguments = Dinov2WithRegistersModel(config), 5, {}
    elif family is DINOV3:
        config = DINOv3ViTConfig(**TORCH, intermediate_size=40, num_register_tokens=4)
        model, first, arguments = DINOv3ViTModel(config).eval(), 5, {}
    elif family is SIGLIP:
        config = SiglipVisionConfig(**TORCH, intermediate_size=40)
        model, first = SiglipVisionModel(config), 0
        arguments = {"interpolate_pos_encoding": True}
    else:
        config = ViTMAEConfig(**TORCH, intermediate_size=40, mask_ratio=0.0)
        model, first = ViTMAEModel(config), 1
        arguments = {"noise": noise, "interpolate_pos_encoding": True}
    shake(model).save_pretrained(tmp_path)
    norms = {DINOV3.name: "norm", SIGLIP.name: "post_layernorm"}
    norm = getattr(model, norms.get(family.name, "layernorm"))
    torch.nn.init.ones_(norm.weight)
    torch.nn.init.zeros_(norm.bias)
    with torch.no_grad():
        reference = model(pixels, **arguments).last_hidden_state[:, first:]
    loaded, _, _ = read_encoder(tmp_path, input_size=side, grid=None)
    assert loaded.architecture.family == family.name
    assert type(loaded) is family.module
    assert relative_error(loaded(images(side)), reference) < 2e-5


@pytest.mark.parametrize(
    ("family", "make", "norm"),
    [
        (DINOV2, lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig()), 2 * 768),
        (MAE, lambda: ViTMAEModel(ViTMAEConfig()), 2 * 768),
    ],
)
def test_base_size_has_the_parameters_of_transformers(family, make, norm):
    with torch.device("meta"):
        expected = sum(parameter.numel() for parameter in make().parameters()) - norm

    def base():
        return encoder(
            family,
            input_size=224,
            patch_size=16,
            hidden_size=768,
            depth=12,
            num_heads=12,
            intermediate_size=3072,
            position_grid=14,
        )

    leaves = jax.tree.leaves(nnx.state(nnx.eval_shape(base)))
    assert sum(leaf.size for leaf in leaves) == expected
