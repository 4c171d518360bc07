"""Official DiT^DH and decoder files: golden, every switch, both ways, every misfit."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from support.golden_files import GOLDEN, arrays, channels_last, relative_error
from support.official_shapes import ddt_shapes, decoder_shapes
from support.torch_ddt import TorchDDT

from rae_dit.api import load_ddt
from rae_dit.architecture import Compute, DDTArchitecture, DecoderArchitecture
from rae_dit.models.ddt import DDT
from rae_dit.models.decoder import Decoder
from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.official import (
    export_ddt,
    export_decoder,
)
from rae_dit.weights.released import read_decoder
from rae_dit.weights.tensor_file import open_tensors, save_tensors

BUFFER = "feat_rope.freqs"
DDT_SIZES = {
    "S": {"hidden_size": (384, 2048), "depth": (12, 2), "num_heads": (6, 16)},
    "B": {"hidden_size": (768, 2048), "depth": (12, 2), "num_heads": (12, 16)},
    "L": {"hidden_size": (1024, 2048), "depth": (24, 2), "num_heads": (16, 16)},
    "XL": {"hidden_size": (1152, 2048), "depth": (28, 2), "num_heads": (16, 16)},
}
DECODER_SIZES = {
    "ViTB": {"hidden_size": 768, "depth": 12, "num_heads": 12, "intermediate_size": 3072},
    "ViTL": {"hidden_size": 1024, "depth": 24, "num_heads": 16, "intermediate_size": 4096},
    "ViTXL": {"hidden_size": 1152, "depth": 28, "num_heads": 16, "intermediate_size": 4096},
}


def manifest(name):
    content = json.loads((GOLDEN / "manifests.json").read_text())
    shapes = {key: tuple(shape) for key, shape in content[name].items()}
    return shapes, content[f"{name}_params"]


def count(shapes):
    return sum(int(np.prod(shape)) for key, shape in shapes.items() if BUFFER not in key)


@pytest.mark.parametrize("size", DDT_SIZES)
def test_released_ddt_sizes_are_written_name_for_name(size):
    def make():
        architecture = DDTArchitecture(
            input_size=16, in_channels=768, num_classes=1000, **DDT_SIZES[size]
        )
        return DDT(architecture, Compute(), rngs=nnx.Rngs(0))

    shapes, parameters = manifest(f"ddt_{size}")
    assert ddt_shapes(nnx.eval_shape(make)) == shapes
    assert count(shapes) == parameters


@pytest.mark.parametrize("size", DECODER_SIZES)
def test_released_decoder_sizes_are_written_name_for_name(size):
    def make():
        sizes = DecoderArchitecture(in_width=768, grid=16, patch_size=16, **DECODER_SIZES[size])
        return Decoder(sizes, Compute(), rngs=nnx.Rngs(0))

    shapes, parameters = manifest(f"decoder_{size}")
    assert decoder_shapes(nnx.eval_shape(make)) == shapes
    assert count(shapes) == parameters


@pytest.mark.parametrize("name", ["ddt_default", "ddt_qknorm"])
def test_golden_velocity(name):
    golden = arrays(name)
    velocity = load_ddt(GOLDEN / f"{name}.pt")(channels_last(golden["x"]), golden["t"], golden["y"])
    assert relative_error(velocity, channels_last(golden["velocity"])) < 2e-6


def test_bfloat16_velocity_is_near_float32():
    golden = arrays("ddt_default")
    model = load_ddt(GOLDEN / "ddt_default.pt", dtype=jnp.bfloat16)
    velocity = model(channels_last(golden["x"]), golden["t"], golden["y"])
    assert velocity.dtype == jnp.float32
    assert 1e-4 < relative_error(velocity, channels_last(golden["velocity"])) < 2e-2


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", ["ddt_default", "ddt_default_weak", "ddt_qknorm"])
def test_ddt_round_trips_are_bit_equal(name, suffix, tmp_path):
    original = open_tensors(GOLDEN / f"{name}.pt")
    save_tensors(tmp_path / f"a{suffix}", export_ddt(load_ddt(GOLDEN / f"{name}.pt")))
    again = open_tensors(tmp_path / f"a{suffix}")
    assert set(again) == set(original)
    for key, tensor in original.items():
        if BUFFER in key:  # recomputed
            np.testing.assert_allclose(again[key], tensor, atol=1e-6)
        else:
            np.testing.assert_array_equal(again[key], tensor, err_msg=key)
    twice = export_ddt(load_ddt(tmp_path / f"a{suffix}"))
    for key, tensor in again.items():
        np.testing.assert_array_equal(twice[key], tensor, err_msg=key)


@pytest.mark.parametrize("family", ["dinov2", "siglip2", "mae"])
def test_decoder_round_trips_are_bit_equal(family, tmp_path):
    source = GOLDEN / f"rae_{family}_decoder"
    original = open_tensors(source / "model.pt")
    written = export_decoder(read_decoder(source))
    assert set(written) == set(original)
    for key, tensor in original.items():
        np.testing.assert_array_equal(written[key], tensor, err_msg=key)


SWITCHES = {
    "none": {},
    "no swiglu": {"swiglu": False},
    "no rmsnorm": {"rms": False},
    "no position": {"pos": False},
    "no rope": {"rope": False},
    "qk-norm": {"qk": True},
    "qk-norm, no rmsnorm": {"qk": True, "rms": False},
    "nothing": {"swiglu": False, "rms": False, "pos": False, "rope": False, "qk": True},
    "wider": {"widths": (32, 48), "heads": (2, 6), "ratio": 3.0, "grid": 5},
    "equal widths": {"widths": (32, 32), "depths": (1, 2)},
    "odd ratio": {"ratio": 2.7},
}
PLAIN = {"grid": 3, "channels": 6, "widths": (24, 32), "depths": (2, 1), "heads": (2, 2)}
PLAIN |= {"classes": 5, "ratio": 4.0, "qk": False, "swiglu": True, "rope": True, "rms": True}
PLAIN |= {"pos": True}


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_equals_torch(switch, tmp_path):
    torch.manual_seed(0)
    sizes = PLAIN | SWITCHES[switch]
    model = TorchDDT(**sizes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.save(model.state_dict(), tmp_path / "a.pt")
    x = torch.randn(2, 6, sizes["grid"], sizes["grid"])
    t, y = torch.tensor([0.2, 0.9]), torch.tensor([1, 5])
    with torch.no_grad():
        reference = model(x, t, y).permute(0, 2, 3, 1)
    known = {}
    if not sizes["rope"] and not sizes["qk"]:
        known["num_heads"] = sizes["heads"]
    if not sizes["rope"] and not sizes["pos"]:
        known["input_size"] = sizes["grid"]
    if sizes["widths"][0] == sizes["widths"][1]:
        known["depth"] = sizes["depths"]
    loaded = load_ddt(tmp_path / "a.pt", **known)
    assert (
        relative_error(loaded(x.permute(0, 2, 3, 1).numpy(), t.numpy(), y.numpy()), reference)
        < 5e-6
    )
    written = export_ddt(loaded)
    assert set(written) == set(model.state_dict())


def changed_file(tmp_path, change):
    tensors = dict(open_tensors(GOLDEN / "ddt_default_weak.pt"))
    change(tensors)
    save_tensors(tmp_path / "a.pt", tensors)
    return tmp_path / "a.pt"


def set_nan(tensors):
    tensors["blocks.2.mlp.w3.bias"] = np.full(64, np.nan, np.float32)


CHANGES = {
    "missing": (lambda t: t.pop("t_embedder.W"), r"1 missing \(t_embedder\.W\)"),
    "extra": (lambda t: t.update(odd=np.ones(1)), r"1 not known \(odd\)"),
    "misshapen": (
        lambda t: t.update({"blocks.1.attn.proj.weight": np.ones((32, 31))}),
        r"1 misshapen \(blocks\.1\.attn\.proj\.weight \(32, 31\), not \(32, 32\)\)",
    ),
    "not finite": (set_nan, r"1 not finite \(blocks\.2\.mlp\.w3\.bias\)"),
    "other angles": (
        lambda t: t.update({"enc_feat_rope.freqs_sin": t["enc_feat_rope.freqs_sin"] + 1e-3}),
        r"1 fixed by the architecture, yet different \(enc_feat_rope\.freqs_sin\)",
    ),
    "gap": (
        lambda t: [t.pop(key) for key in list(t) if key.startswith("blocks.1.")],
        r"blocks\.1\.\*: missing; expected a block",
    ),
    "no shift": (
        lambda t: t.update({"blocks.0.adaLN_modulation.1.bias": np.ones(128)}),
        "wo_shift",
    ),
    "other model": (
        lambda t: t.pop("s_embedder.proj.bias"),
        r"s_embedder\.proj\.bias: missing; expected it in a DiT",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_kind_of_misfit_is_named(change, tmp_path):
    alter, message = CHANGES[change]
    with pytest.raises(WeightsError, match=message):
        load_ddt(changed_file(tmp_path, alter))


def test_all_misfits_are_in_one_error(tmp_path):
    def change(tensors):
        del tensors["t_embedder.W"], tensors["x_embedder.proj.bias"]
        tensors["odd"] = np.ones(1)

    with pytest.raises(WeightsError, match=r"2 missing .*; 1 not known"):
        load_ddt(changed_file(tmp_path, change))


def test_what_a_file_cannot_tell_is_asked_for(tmp_path):
    def without_rope(tensors):
        for name in [name for name in tensors if BUFFER in name]:
            del tensors[name]

    path = changed_file(tmp_path, without_rope)
    with pytest.raises(WeightsError, match="num_heads: got none"):
        load_ddt(path)
    assert not load_ddt(path, num_heads=(4, 4)).architecture.use_rope

    def without_place(tensors):
        without_rope(tensors)
        del tensors["pos_embed"]

    with pytest.raises(WeightsError, match="input_size: got none"):
        load_ddt(changed_file(tmp_path, without_place), num_heads=(4, 4))


def test_where_the_head_begins_is_asked_for_when_widths_are_equal(tmp_path):
    torch.manual_seed(0)
    model = TorchDDT(**(PLAIN | {"widths": (32, 32), "depths": (3, 1)}))
    torch.save(model.state_dict(), tmp_path / "a.pt")
    assert load_ddt(tmp_path / "a.pt", depth=(3, 1)).head.depth == 1
    for hint, said in ((None, "none"), ((3, 2), "(3, 2)")):
        message = f"depth: got {said}; expected depth=(backbone, head) with the sum 4: all blocks"
        with pytest.raises(WeightsError, match=re.escape(message)):
            load_ddt(tmp_path / "a.pt", depth=hint)


@pytest.mark.parametrize(
    ("hint", "found"),
    [({"input_size": 5}, 4), ({"depth": (2, 3)}, "(3, 2)"), ({"num_heads": (2, 4)}, "(4, 4)")],
)
def test_an_argument_that_the_file_contradicts_is_refused(hint, found):
    (name, value), *_ = hint.items()
    message = re.escape(f"{name}: got {value}; expected {found}, which ")
    with pytest.raises(WeightsError, match=message):
        load_ddt(GOLDEN / "ddt_default.pt", **hint)


def test_decoders_without_config_take_heads_of_released_widths(tmp_path):
    with pytest.raises(
        WeightsError, match=r"decoder_num_attention_heads: got none; .*config\.json.*width 64"
    ):
        read_decoder(GOLDEN.parent / copy_alone(tmp_path))

    def released():
        sizes = DecoderArchitecture(
            in_width=8, grid=2, patch_size=2, hidden_size=768, depth=1, num_heads=12,
            intermediate_size=8,
        )  # fmt: skip
        return Decoder(sizes, Compute(), rngs=nnx.Rngs(0))

    save_tensors(tmp_path / "b.pt", export_decoder(released()))
    assert read_decoder(tmp_path / "b.pt").trunk.blocks.attention.num_heads == 12


def copy_alone(tmp_path):
    tensors = open_tensors(GOLDEN / "rae_mae_decoder" / "model.pt")
    save_tensors(tmp_path / "model.pt", tensors)
    return tmp_path / "model.pt"


def test_trained_positions_are_used_as_they_are_and_logged(tmp_path, caplog):
    caplog.set_level("INFO")
    load_ddt(GOLDEN / "ddt_default_weak.pt")
    read_decoder(GOLDEN / "rae_mae_decoder")
    assert "sines and cosines" not in caplog.text

    def move(tensors):
        for name in ("pos_embed", "t_embedder.W"):
            tensors[name] = tensors[name] + np.float32(1e-3)

    moved = changed_file(tmp_path, move)
    written = export_ddt(load_ddt(moved))
    for name in ("pos_embed", "t_embedder.W"):
        np.testing.assert_array_equal(written[name], open_tensors(moved)[name])
    assert caplog.text.count("pos_embed: up to 0.001 from sines and cosines; used as stored") == 1


def test_decoders_of_another_activation_are_refused(tmp_path):
    tensors = dict(open_tensors(GOLDEN / "rae_mae_decoder" / "model.pt"))
    save_tensors(tmp_path / "model.pt", tensors)
    config = (GOLDEN / "rae_mae_decoder" / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"gelu"', '"relu"'))
    with pytest.raises(WeightsError, match="hidden_act: got 'relu'; expected 'gelu'"):
        read_decoder(tmp_path)
