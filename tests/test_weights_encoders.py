"""Encoder directories: spellings of names, sizes, refusals."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.golden_files import GOLDEN, arrays, channels_last
from transformers import (
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    SiglipVisionConfig,
    ViTMAEConfig,
)

from rae_dit.models.encoders.dinov2 import DINOV2
from rae_dit.models.encoders.dinov3 import DINOV3
from rae_dit.models.encoders.mae import MAE
from rae_dit.models.encoders.siglip import SIGLIP
from rae_dit.weights import encoder_config, huggingface
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
    with pytest.raises(WeightsError, match="use_swiglu_ffn: got true"):
        read_encoder(path, input_size=56, grid=None)
    edit_config(path, use_swiglu_ffn=False, hidden_act="relu")
    with pytest.raises(WeightsError, match="hidden_act: got 'relu'"):
        read_encoder(path, input_size=56, grid=None)
    edit_config(path, model_type="dinov2", hidden_act="gelu")
    with pytest.raises(WeightsError, match="without registers"):
        read_encoder(path, input_size=56, grid=None)
    edit_config(path, model_type="vit")
    with pytest.raises(
        WeightsError,
        match="model_type: got 'vit'; expected one of dinov2_with_registers, dinov3_vit, ",
    ):
        read_encoder(path, input_size=56, grid=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("embeddings.cls_token"), r"1 missing \(embeddings\.cls_token\)"),
        (lambda t: t.update(head=np.ones(1, "f")), r"1 not known \(head\)"),
        (
            lambda t: t.pop("embeddings.position_embeddings"),
            "position_embeddings: missing; expected it in",
        ),
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
    with pytest.raises(
        WeightsError,
        match=r"got nothing that is read among config\.json, .*; expected one of model",
    ):
        read_encoder(path, input_size=56, grid=None)


@pytest.fixture
def no_network_is_built(monkeypatch):
    """What is read of config files is looked at; the network is not filled."""
    monkeypatch.setattr(
        huggingface, "import_encoder", lambda tensors, architecture, _: architecture
    )


def read(path):
    return read_encoder(path, input_size=56, grid=None)


@pytest.mark.parametrize(
    ("family", "config"),
    [
        (DINOV2, Dinov2WithRegistersConfig),
        (DINOV3, DINOv3ViTConfig),
        (SIGLIP, SiglipVisionConfig),
        (MAE, ViTMAEConfig),
    ],
)
def test_what_a_config_leaves_out_is_what_transformers_takes(family, config):
    ours = {**encoder_config.DEFAULTS, **family.huggingface.defaults}
    theirs = {name: getattr(config(), name) for name in ours if hasattr(config(), name)}
    assert {name: ours[name] for name in theirs} == theirs
    assert ours.keys() - theirs.keys() <= {"intermediate_size"}  # DINOv2 has mlp_ratio


@pytest.mark.usefixtures("no_network_is_built")
@pytest.mark.parametrize(
    "change",
    [{"mlp_ratio": 4.0}, {"patch_size": [14, 14]}, {"hidden_size": 48.0, "num_hidden_layers": 3.0}],
)
def test_a_value_that_can_only_mean_one_thing_is_taken(change, tmp_path):
    path = directory(tmp_path, "dinov2")
    expected = read(path)
    edit_config(path, **change)
    assert read(path) == expected


@pytest.mark.usefixtures("no_network_is_built")
@pytest.mark.parametrize("content", [{"do_resize": True}, {"image_mean": None, "image_std": None}])
def test_images_without_constants_get_the_published_ones_with_a_word(content, tmp_path, caplog):
    path = directory(tmp_path, "dinov2")
    (path / "preprocessor_config.json").write_text(json.dumps(content))
    assert read(path)[1:] == (DINOV2.image_mean, DINOV2.image_std)
    assert "has no image_mean; using the constants published for DINOv2" in caplog.text


WRONG = {
    "timm's": (
        {"model_type": None, "pretrained_cfg": {}},
        r"got None \(this config is timm's\); exp",
    ),
    "code": (
        {"model_type": "special_vit", "auto_map": {}},
        "names code of its own, which is not run",
    ),
    "a list": ({"model_type": ["vit"]}, r"model_type: got \['vit'\]; expected one of"),
    "two patches": (
        {"patch_size": [14, 16]},
        r"patch_size: got \[14, 16\]; expected a whole number",
    ),
    "null": ({"hidden_size": None}, "hidden_size: got None; expected a whole number, in "),
    "text": ({"num_hidden_layers": "3"}, "num_hidden_layers: got '3'; expected a whole number"),
    "a fraction": ({"num_attention_heads": 4.5}, "num_attention_heads: got 4.5; expected a whole"),
    "negative": ({"num_register_tokens": -1}, "num_register_tokens: got -1; expected a whole"),
    "zero": ({"patch_size": 0}, "patch_size: got 0; expected at least 1"),
    "a truth": ({"hidden_size": True}, "hidden_size: got True; expected a whole number"),
    "nan": ({"layer_norm_eps": float("nan")}, "layer_norm_eps: got nan; expected a number"),
    "huge": ({"hidden_size": 10**30}, "hidden_size: got 1000.*; expected a whole number"),
    "a huge product": ({"mlp_ratio": 1e6}, "intermediate_size: got 48000000; expected"),
    "heads": ({"num_attention_heads": 5}, "num_attention_heads: got 5; expected a divisor of hid"),
    "depth": ({"num_hidden_layers": 4}, "num_hidden_layers: got 4; expected 3, the file's blocks"),
    "a tower": ({"vision_config": "x"}, "vision_config: got 'x'; expected an object"),
}


@pytest.mark.usefixtures("no_network_is_built")
@pytest.mark.parametrize("case", WRONG)
def test_odd_configs_are_refused_in_one_line(case, tmp_path):
    change, message = WRONG[case]
    path = directory(tmp_path, "dinov2")
    edit_config(path, **change)
    with pytest.raises(WeightsError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_network_is_built")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "got a Git LFS pointer; expected the file itself: run 'git lfs pull'",
        ),
        ('{"hidden_size": ', "got JSONDecodeError .*; expected JSON"),
        ("\ud800".encode("utf-16", "surrogatepass"), "got UnicodeDecodeError .*; expected JSON"),
        ("[1]", "got a list; expected a JSON object"),
        ("[" * 100_000, "got RecursionError .*; expected JSON"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_damaged_configs_are_refused_in_one_line(name, text, message, tmp_path):
    path = directory(tmp_path, "dinov2")
    (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(WeightsError, match=rf"{name}: {message}") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_network_is_built")
@pytest.mark.parametrize(
    "value", [0.5, [0.5, 0.5], [0.5, 0.5, None], [123.7, 116.3, 103.5], [True, 0.5, 0.5], "0.5"]
)
def test_odd_image_constants_are_refused_in_one_line(value, tmp_path):
    path = directory(tmp_path, "dinov2")
    for mean, std in ((value, [0.5] * 3), ([0.5] * 3, value), (None, [0.5] * 3)):
        content = {"image_mean": mean, "image_std": std}
        (path / "preprocessor_config.json").write_text(json.dumps(content))
        with pytest.raises(WeightsError, match=r"image_(mean|std): got .*; expected three numbers"):
            read(path)


def test_code_that_a_config_names_is_not_run_and_not_asked_for(tmp_path, monkeypatch):
    path = directory(tmp_path, "dinov2")
    (path / "special.py").write_text("raise SystemExit('was run')")
    edit_config(path, auto_map={"AutoConfig": "special.SpecialConfig"})
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    assert read(path)[0].input_size == 56  # the family is known, so the code is not needed
    edit_config(path, model_type="special_vit")
    with pytest.raises(WeightsError, match="names code of its own, which is not run"):
        read(path)


def test_weights_without_a_config_are_refused_in_one_line(tmp_path):
    path = tmp_path / "dinov2_vitb14_reg4_pretrain.pth"
    torch.save({"cls_token": torch.ones(1)}, path)
    with pytest.raises(WeightsError, match=r"got .*\.pth; expected a directory with config\.json"):
        read(path)
    with pytest.raises(
        WeightsError, match=r"without a config\.json .*files of torch\.hub"
    ) as error:
        read(tmp_path)
    assert "dinov2_vitb14_reg4_pretrain.pth" in str(error.value)


@pytest.mark.usefixtures("no_network_is_built")
def test_a_variant_is_taken_where_there_is_no_other(tmp_path, caplog):
    path = directory(tmp_path, "dinov2")
    expected = read(path)
    (path / "model.safetensors").rename(path / "model.fp16.safetensors")
    assert read(path) == expected
    assert "taking the variant model.fp16.safetensors" in caplog.text
    shutil.copy(path / "model.fp16.safetensors", path / "model.bf16.safetensors")
    with pytest.raises(WeightsError, match=r"the variants model\.bf16\.safetensors, model\.fp16"):
        read(path)


def test_positions_of_mae_that_are_no_sines_are_loaded_and_used(tmp_path):
    """Adding to the position of one patch, or of CLS, adds it to that token alone."""
    path = directory(tmp_path, "mae")
    tensors = load_file(path / "model.safetensors")
    (name,) = [name for name in tensors if name.endswith("position_embeddings")]
    change = np.zeros_like(tensors[name])
    change[0, 0], change[0, 7] = 2, np.arange(change.shape[-1])
    patches = np.zeros((1, 16, change.shape[-1]), np.float32)

    def embedded():
        encoder, _, _ = read_encoder(path, input_size=64, grid=None)
        return np.asarray(encoder.embed_tokens(patches))

    before = embedded()
    save_file(tensors | {name: tensors[name] + change}, path / "model.safetensors")
    np.testing.assert_allclose(embedded() - before, change, atol=1e-5)
