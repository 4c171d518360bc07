"""Encoder directories: spellings of names, sizes, refusals."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.golden_files import GOLDEN, arrays, channels_last

from rae_dit.models.encoders.dinov2 import DINOV2
from rae_dit.models.encoders.mae import MAE
from rae_dit.models.encoders.siglip import SIGLIP
from rae_dit.weights.encoder_names import canonical_name
from rae_dit.weights.huggingface import read_encoder
from rae_dit.weights.mapping import WeightsError

INPUT = {"dinov2": 56, "siglip2": 64, "mae": 64}


def directory(tmp_path, family):
    shutil.copytree(GOLDEN / f"rae_{family}_encoder", tmp_path / family)
    return tmp_path / family


def edit_config(path, **changes):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


def tokens(path, family):
    encoder, _, _ = read_encoder(path, input_size=INPUT[family], grid=None)
    return encoder(
        channels_last(arrays(f"rae_{family}")["image"])[:, : INPUT[family], : INPUT[family]]
    )


@pytest.mark.parametrize(
    ("family", "older", "newer"),
    [
        (
            DINOV2,
            "dinov2_with_registers.encoder.layer.11.attention.attention.query.bias",
            "encoder.layer.11.attention.q_proj.bias",
        ),
        (
            DINOV2,
            "model.encoder.layer.0.attention.output.dense.weight",
            "encoder.layer.0.attention.o_proj.weight",
        ),
        (DINOV2, "encoder.layer.0.layer_scale1.lambda1", "encoder.layer.0.layer_scale1.lambda1"),
        (MAE, "vit.encoder.layer.3.intermediate.dense.weight", "layers.3.mlp.fc1.weight"),
        (MAE, "vit.encoder.layer.3.output.dense.weight", "layers.3.mlp.fc2.weight"),
        (MAE, "encoder.layer.3.attention.output.dense.bias", "layers.3.attention.o_proj.bias"),
        (MAE, "vit.encoder.layer.1.attention.attention.key.bias", "layers.1.attention.k_proj.bias"),
        (MAE, "layers.3.attention.v_proj.weight", "layers.3.attention.v_proj.weight"),
        (
            SIGLIP,
            "vision_model.encoder.layers.2.self_attn.out_proj.bias",
            "encoder.layers.2.self_attn.out_proj.bias",
        ),
        (DINOV2, "layernorm.weight", None),
        (MAE, "decoder.decoder_norm.bias", None),
        (SIGLIP, "text_model.encoder.layers.0.mlp.fc1.bias", None),
        (SIGLIP, "vision_model.head.probe", None),
        (SIGLIP, "vision_model.post_layernorm.weight", None),
    ],
)
def test_older_spellings_are_the_same_tensor(family, older, newer):
    assert canonical_name(older, family.huggingface.tensors) == newer


def test_a_tower_alone_and_a_bin_file_are_the_same_encoder(tmp_path):
    path = directory(tmp_path, "mae")
    expected = tokens(path, "mae")
    tensors = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    alone = {
        name.removeprefix("vit."): torch.tensor(tensor)
        for name, tensor in tensors.items()
        if name.startswith("vit.")
    }
    torch.save(alone, path / "pytorch_model.bin")
    np.testing.assert_array_equal(tokens(path, "mae"), expected)


def test_the_vision_tower_of_siglip_alone_is_the_same_encoder(tmp_path):
    path = directory(tmp_path, "siglip2")
    expected = tokens(path, "siglip2")
    config = json.loads((path / "config.json").read_text())["vision_config"]
    (path / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(tokens(path, "siglip2"), expected)


def test_the_input_size_follows_the_grid_or_the_position_table():
    path = GOLDEN / "rae_dinov2_encoder"
    assert read_encoder(path, input_size=None, grid=4)[0].input_size == 56
    assert read_encoder(path, input_size=None, grid=None)[0].input_size == 70


def test_image_constants_are_the_processor_s_or_the_published_ones(tmp_path, caplog):
    path = directory(tmp_path, "siglip2")
    (path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]})
    )
    assert read_encoder(path, input_size=64, grid=None)[1:] == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    (path / "preprocessor_config.json").unlink()
    assert read_encoder(path, input_size=64, grid=None)[1:] == ((0.5,) * 3, (0.5,) * 3)
    assert "using the constants published for SigLIP" in caplog.text


def test_other_models_are_refused(tmp_path):
    path = directory(tmp_path, "dinov2")
    edit_config(path, use_swiglu_ffn=True)
    with pytest.raises(WeightsError, match="SwiGLU"):
        read_encoder(path, input_size=56, grid=None)
    edit_config(path, use_swiglu_ffn=False, hidden_act="relu")
    with pytest.raises(WeightsError, match="hidden_act: got 'relu'"):
        read_encoder(path, input_size=56, grid=None)
    edit_config(path, model_type="dinov2", hidden_act="gelu")
    with pytest.raises(WeightsError, match="without registers"):
        read_encoder(path, input_size=56, grid=None)
    edit_config(path, model_type="vit")
    with pytest.raises(
        WeightsError, match="model_type: got 'vit'; expected one of dinov2_with_registers, siglip, "
    ):
        read_encoder(path, input_size=56, grid=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("embeddings.cls_token"), r"1 missing \(embeddings\.cls_token\)"),
        (lambda t: t.update(head=np.ones(1, "f")), r"1 not known \(head\)"),
        (lambda t: t.pop("embeddings.position_embeddings"), "position_embeddings is missing"),
    ],
)
def test_every_tensor_is_accounted_for(change, message, tmp_path):
    path = directory(tmp_path, "dinov2")
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(WeightsError, match=message):
        read_encoder(path, input_size=56, grid=None)
    (path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="holds no weights"):
        read_encoder(path, input_size=56, grid=None)
