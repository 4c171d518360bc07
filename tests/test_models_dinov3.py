"""DINOv3 and the read-out of several layers against RAEv2's golden file."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.golden_files import GOLDEN, arrays

from rae_dit.api import load_rae
from rae_dit.architecture import Compute
from rae_dit.weights.diffusers_export import save_diffusers
from rae_dit.weights.dinov3_meta import hub_names
from rae_dit.weights.huggingface import read_encoder
from rae_dit.weights.mapping import WeightsError

SETTINGS = json.loads((GOLDEN / "raev2" / "rae_dinov3.json").read_text())


@pytest.fixture(scope="module")
def golden():
    return arrays("raev2/rae_dinov3")


@pytest.fixture(scope="module")
def read():
    def read(**changes):
        return read_encoder(
            GOLDEN / "raev2" / "rae_dinov3_encoder",
            Compute(),
            input_size=SETTINGS["resolution"],
            grid=None,
            **changes,
        )[0]

    return read


def test_hidden_states(read, golden):
    encoder = read()
    image = jnp.asarray(golden["normalised"].transpose(0, 2, 3, 1))
    layers = tuple(range(encoder.trunk.depth))
    for mine, reference in zip(
        encoder.block_outputs(image, layers), golden["hidden_states"], strict=True
    ):
        np.testing.assert_allclose(mine, reference[:, 5:], atol=2e-5)


def test_tokens_of_the_last_layer_and_of_several(read, golden):
    image = jnp.asarray(golden["normalised"].transpose(0, 2, 3, 1))
    np.testing.assert_allclose(read()(image), golden["tokens_k1"], atol=1e-5)
    several = read(layers=tuple(SETTINGS["layers"]), add_mean=True)
    np.testing.assert_allclose(several(image), golden["tokens_mls"], atol=1e-5)


def test_keys_get_no_bias_whatever_is_stored(read, golden):
    image = jnp.asarray(golden["normalised"].transpose(0, 2, 3, 1))
    encoder = read()
    bias = encoder.trunk.blocks.attention.qkv.bias
    before = encoder(image)
    width = SETTINGS["encoder_keys"]["norm.weight"][0]
    bias[...] = bias[...].at[:, width : 2 * width].set(1.0)
    np.testing.assert_array_equal(encoder(image), before)


def test_layers_that_are_not_there_are_refused(read):
    with pytest.raises(WeightsError, match=r"layers: got \(1, 5\); expected numbers of the 5"):
        read(layers=(1, 5))


def meta_state_dict() -> dict[str, torch.Tensor]:
    """The golden encoder under Meta's names, with q|k|v fused and a masked bias of the keys."""
    hub = load_file(GOLDEN / "raev2" / "rae_dinov3_encoder" / "model.safetensors")
    names = {
        "embeddings.cls_token": "cls_token",
        "embeddings.register_tokens": "storage_tokens",
        "embeddings.patch_embeddings.": "patch_embed.proj.",
        "attention.o_proj": "attn.proj",
        "up_proj": "fc1",
        "down_proj": "fc2",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
    }
    state = {"mask_token": hub.pop("embeddings.mask_token")[0]}
    for number in range(5):
        here = f"layer.{number}.attention."
        q, k, v = (hub.pop(f"{here}{part}_proj.weight") for part in "qkv")
        state[f"blocks.{number}.attn.qkv.weight"] = torch.cat([q, k, v])
        biases = [hub.pop(f"{here}q_proj.bias"), torch.ones(48), hub.pop(f"{here}v_proj.bias")]
        state[f"blocks.{number}.attn.qkv.bias"] = torch.cat(biases)
        mask = torch.cat([torch.ones(48), torch.zeros(48), torch.ones(48)])
        state[f"blocks.{number}.attn.qkv.bias_mask"] = mask
    for name, tensor in hub.items():
        for theirs, meta in names.items():
            name = name.replace(theirs, meta)
        state[name.replace("layer.", "blocks.", name.startswith("layer."))] = tensor
    state["rope_embed.periods"] = 100.0 ** (torch.arange(4) / 4)  # heads of 16
    return state


def test_a_file_of_metas_is_the_same_encoder(read, golden, tmp_path):
    torch.save(meta_state_dict(), tmp_path / "dinov3_vitt16.pth")
    rae = load_rae(
        encoder=tmp_path / "dinov3_vitt16.pth",
        encoder_input_size=SETTINGS["resolution"],
        encoder_layers=tuple(SETTINGS["layers"]),
        encoder_add_mean=True,
    )
    tokens = rae.tokens(golden["image"].transpose(0, 2, 3, 1))
    np.testing.assert_allclose(tokens, golden["tokens_mls"], atol=1e-5)
    same = read(layers=tuple(SETTINGS["layers"]), add_mean=True)
    assert rae.encoder.architecture == same.architecture


def test_a_whole_rae_of_raev2(golden):
    rae = load_rae(
        encoder=GOLDEN / "raev2" / "rae_dinov3_encoder",
        decoder=GOLDEN / "raev2" / "rae_dinov3_decoder",
        decoder_pixels="unit",
        stats=GOLDEN / "raev2" / "rae_dinov3_stat.pt",
        encoder_input_size=SETTINGS["resolution"],
        encoder_layers=tuple(SETTINGS["layers"]),
        encoder_add_mean=True,
    )
    for image, latent in (("image", "latent_mls"), ("image_other_size", "latent_other_size")):
        mine = rae.encode(golden[image].transpose(0, 2, 3, 1))
        np.testing.assert_allclose(mine, golden[latent].transpose(0, 2, 3, 1), atol=1e-5)
    latent = golden["latent_mls"].transpose(0, 2, 3, 1)
    image = rae.decode(latent)
    np.testing.assert_allclose(image, golden["reconstruction"].transpose(0, 2, 3, 1), atol=2e-6)
    with pytest.raises(WeightsError, match=r"dinov3"):
        save_diffusers(rae, GOLDEN / "nowhere")


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """A DINOv3 with the gated MLPs of S+ and H+: transformers' own module, random weights."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 40}
    config = DINOv3ViTConfig(
        **sizes,
        num_hidden_layers=2,
        num_register_tokens=4,
        patch_size=8,
        image_size=32,
        use_gated_mlp=True,
        hidden_act="silu",
    )
    torch.manual_seed(0)
    model = DINOv3ViTModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("norm."):  # its affine part is not used
                parameter.copy_(0.2 * torch.randn(parameter.shape) + ("norm" in name))
    path = tmp_path_factory.mktemp("gated")
    model.save_pretrained(path)
    return model, path


def test_gated_mlps_of_the_plus_sizes(gated, tmp_path):
    model, path = gated
    image = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.tensor(image.transpose(0, 3, 1, 2))).last_hidden_state[:, 5:]
    encoder, _, _ = read_encoder(path, Compute(), input_size=32, grid=None)
    assert encoder.architecture.activation == "swiglu"
    np.testing.assert_allclose(encoder(image), expected, atol=2e-5)

    # Meta's names of the same tensors: w1 is the gate.
    names = {"gate_proj": "w1", "up_proj": "w2", "down_proj": "w3"}
    for hub, meta in names.items():
        found = hub_names(f"blocks.1.mlp.{meta}.weight")
        assert found == {f"layer.1.mlp.{hub}.weight": (f"blocks.1.mlp.{meta}.weight", None)}
    (tmp_path / "config.json").write_text(
        (path / "config.json").read_text().replace("silu", "gelu")
    )
    (tmp_path / "model.safetensors").symlink_to(path / "model.safetensors")
    with pytest.raises(WeightsError, match="hidden_act: got 'gelu'; expected 'silu' of gated MLPs"):
        read_encoder(tmp_path, Compute(), input_size=32, grid=None)
