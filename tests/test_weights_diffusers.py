"""AutoencoderRAE directories: golden, bit-equal both ways, refusals."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.torch import save_file as save_torch_file
from support.golden_files import GOLDEN, arrays, channels_last, relative_error

from rae_dit.api import load_rae
from rae_dit.architecture import Compute, DecoderArchitecture, EncoderArchitecture
from rae_dit.models.decoder import Decoder
from rae_dit.models.encoders.mae import MAE
from rae_dit.models.encoders.siglip import SigLIP
from rae_dit.models.rae import RAE
from rae_dit.weights import diffusers, diffusers_export
from rae_dit.weights.diffusers import computed_positions, read_diffusers
from rae_dit.weights.diffusers_export import save_diffusers
from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.official import export_decoder
from rae_dit.weights.released import read_decoder
from rae_dit.weights.tensor_file import open_tensors, save_tensors

FAMILIES = ["dinov2", "mae"]
WEIGHTS = "diffusion_pytorch_model.safetensors"


def edited(tmp_path, family="dinov2", tensors=None, **config):
    path = tmp_path / "edited"
    shutil.copytree(GOLDEN / f"diffusers_{family}", path)
    content = json.loads((path / "config.json").read_text()) | config
    (path / "config.json").write_text(json.dumps(content))
    if tensors is not None:
        save_tensors(path / WEIGHTS, dict(open_tensors(path / WEIGHTS)) | tensors)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_golden_latents_and_reconstructions(family):
    golden = arrays(f"diffusers_{family}")
    rae = load_rae(GOLDEN / f"diffusers_{family}")
    latent = channels_last(golden["latent"])
    assert relative_error(rae.encode(channels_last(golden["image"])), latent) < 1e-5
    reconstruction = channels_last(golden["reconstruction"])
    assert relative_error(rae.decode(latent), reconstruction) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_directory_read_and_written_is_the_same_to_the_bit(family, tmp_path):
    original = GOLDEN / f"diffusers_{family}"
    save_diffusers(load_rae(original), tmp_path)
    assert (tmp_path / "config.json").read_text() == (original / "config.json").read_text()
    before, after = open_tensors(original / WEIGHTS), open_tensors(tmp_path / WEIGHTS)
    assert set(before) == set(after)
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        np.testing.assert_array_equal(after[name], tensor, err_msg=name)


def test_what_diffusers_divides_by_is_what_we_divide_by(tmp_path):
    rae = load_rae(GOLDEN / "diffusers_mae")
    std = open_tensors(GOLDEN / "diffusers_mae" / WEIGHTS)["_latents_std"]
    divisor = (std + np.float32(1e-5)).transpose(1, 2, 0)
    np.testing.assert_array_equal(rae.latent_scale[...], divisor)
    scaled = load_rae(edited(tmp_path, "mae", scaling_factor=2.0))
    image = channels_last(arrays("diffusers_mae")["image"])
    np.testing.assert_allclose(scaled.encode(image), 2 * rae.encode(image), rtol=1e-5)


def test_without_statistics_diffusers_is_made_to_divide_by_one(tmp_path):
    rae = load_rae(GOLDEN / "diffusers_dinov2")
    plain = RAE(
        rae.encoder,
        rae.decoder,
        image_mean=rae.image_mean,
        image_std=rae.image_std,
        latent_mean=None,
        latent_variance=None,
    )
    save_diffusers(plain, tmp_path)
    again = load_rae(tmp_path)
    np.testing.assert_array_equal(again.latent_scale[...], np.ones(again.latent_shape))
    np.testing.assert_array_equal(again.latent_mean[...], np.zeros(again.latent_shape))


def test_the_defaults_of_diffusers_are_understood(tmp_path):
    defaults = {"_latents_mean": np.zeros(1, "f"), "_latents_std": np.ones(1, "f")}
    path = edited(tmp_path, tensors=defaults, encoder_norm_mean=None, encoder_norm_std=None)
    rae = load_rae(path)
    assert rae.image_mean == (0.485, 0.456, 0.406)
    np.testing.assert_array_equal(rae.latent_scale[...], np.full(rae.latent_shape, 1.00001, "f"))


def test_files_with_older_names_are_read(tmp_path):
    path = edited(tmp_path, "mae")
    older = {}
    for name, tensor in open_tensors(path / WEIGHTS).items():
        name = name.replace("encoder.layers.", "encoder.encoder.layer.")
        for letter, word in (("q", "query"), ("k", "key"), ("v", "value")):
            name = name.replace(f".{letter}_proj.", f".attention.{word}.")
        name = name.replace(".o_proj.", ".output.dense.")
        name = name.replace(".mlp.fc1.", ".intermediate.dense.")
        older[name.replace(".mlp.fc2.", ".output.dense.")] = tensor
    assert "encoder.encoder.layer.0.attention.attention.query.bias" in older
    save_tensors(path / WEIGHTS, older)
    image = channels_last(arrays("diffusers_mae")["image"])
    expected = load_rae(GOLDEN / "diffusers_mae").encode(image)
    np.testing.assert_array_equal(load_rae(path).encode(image), expected)


def test_siglip_directories_carry_the_unused_head(tmp_path):
    rngs = nnx.Rngs(0)
    width = {"hidden_size": 64, "depth": 1, "num_heads": 1}
    architecture = EncoderArchitecture(
        family="siglip", **width, intermediate_size=3072, input_size=8, patch_size=4,
        position_grid=16, activation="gelu_tanh",
    )  # fmt: skip
    encoder = SigLIP(architecture, Compute(), rngs=rngs)
    sizes = DecoderArchitecture(**width, in_width=64, grid=2, patch_size=4, intermediate_size=8)
    decoder = Decoder(sizes, Compute(), rngs=rngs)
    decoder.position[...] = computed_positions(sizes)
    rae = RAE(
        encoder,
        decoder,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        latent_mean=None,
        latent_variance=None,
    )
    save_diffusers(rae, tmp_path)
    assert "encoder.vision_model.head.probe" in open_tensors(tmp_path / WEIGHTS)
    image = np.random.default_rng(0).random((1, 8, 8, 3), np.float32)
    np.testing.assert_array_equal(load_rae(tmp_path).encode(image), rae.encode(image))
    # diffusers would put its own positions in the place of trained ones.
    decoder.position[...] = computed_positions(sizes) + np.eye(5, 64, dtype=np.float32) * 2e-6
    with pytest.raises(WeightsError, match=r"decoder\.position: got values up to 2e-06 from"):
        save_diffusers(rae, tmp_path / "trained")


def test_rescaled_positions_survive_the_official_form(tmp_path):
    decoder = load_rae(GOLDEN / "diffusers_mae").decoder
    columns = np.asarray(decoder.position[...])[1:5, 0]
    np.testing.assert_allclose(columns, np.sin([0, 4, 8, 12]), atol=1e-6)
    save_tensors(tmp_path / "model.pt", export_decoder(decoder))
    (tmp_path / "config.json").write_text((GOLDEN / "rae_mae_decoder/config.json").read_text())
    again = read_decoder(tmp_path)
    tokens = np.random.default_rng(0).standard_normal((1, 16, 64)).astype(np.float32)
    np.testing.assert_array_equal(again(tokens), decoder(tokens))


def test_what_diffusers_cannot_build_is_not_written(tmp_path, monkeypatch):
    rae = load_rae(encoder=GOLDEN / "rae_mae_encoder", decoder=GOLDEN / "rae_mae_decoder")
    with pytest.raises(WeightsError) as error:
        save_diffusers(rae, tmp_path / "out")
    for part in (
        "encoder.num_heads: got 4; expected 0",
        "encoder.position_grid: got 4; expected 14",
        "decoder.position: got values up to 1.9 from those that diffusers computes",
    ):
        assert part in str(error.value)
    assert not (tmp_path / "out").exists()
    unknown = dataclasses.replace(MAE, diffusers=None)
    monkeypatch.setattr(diffusers_export, "find_family", lambda name: unknown)
    with pytest.raises(
        WeightsError, match="encoder: got 'mae'; expected a family that diffusers knows"
    ):
        save_diffusers(rae, tmp_path / "out")
    encoding = load_rae(encoder=GOLDEN / "rae_mae_encoder")
    with pytest.raises(WeightsError, match="decoder: got an RAE without one"):
        save_diffusers(encoding, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reshape_to_2d": False}, "reshape_to_2d: got false; expected true"),
        (
            {"encoder_type": "clip"},
            "encoder_type: got 'clip'; expected one of 'dinov2', 'siglip2', 'mae'",
        ),
        (
            {"encoder_norm_mean": [0.5, 0.5, 0.5]},
            r"encoder_mean: got .*; expected \(0\.5, 0\.5, 0\.5\), as in",
        ),
        ({"tensors": {"odd": np.ones(1, "f")}}, "got tensors .*'odd'"),
        ({"tensors": {"decoder.odd": np.ones(1, "f")}}, r"1 not known \(odd\)"),
        ({"tensors": {"encoder.odd": np.ones(1, "f")}}, r"1 not known \(odd\)"),
    ],
)
def test_directories_that_do_not_fit_are_refused(change, message, tmp_path):
    with pytest.raises(WeightsError, match=message):
        load_rae(edited(tmp_path, **change))


def test_other_directories_are_refused():
    with pytest.raises(
        WeightsError, match=r"expected a directory with the config\.json of an AutoencoderRAE"
    ):
        load_rae(GOLDEN / "rae_mae_encoder")


@pytest.fixture
def no_network_is_built(monkeypatch):
    """What is read of a directory is looked at; networks are not filled."""
    monkeypatch.setattr(diffusers, "import_encoder", lambda named, architecture, _: architecture)
    monkeypatch.setattr(diffusers, "import_decoder_part", lambda config, *_: config)
    encoder = SimpleNamespace(grid=4)
    monkeypatch.setattr(diffusers, "import_encoder_part", lambda *_: encoder)
    monkeypatch.setattr(diffusers, "RAE", lambda *parts, **constants: (parts[1], constants))


def facts(path):
    decoder, constants = read_diffusers(path)
    return decoder, {name: np.asarray(value).tolist() for name, value in constants.items()}


@pytest.mark.usefixtures("no_network_is_built")
def test_what_a_config_leaves_out_is_what_diffusers_takes(tmp_path):
    path = edited(tmp_path)
    expected = facts(path)
    content = json.loads((path / "config.json").read_text())
    for name in ("reshape_to_2d", "scaling_factor", "encoder_norm_mean", "encoder_type"):
        del content[name]
    (path / "config.json").write_text(json.dumps(content))
    assert facts(path) == expected


@pytest.mark.usefixtures("no_network_is_built")
def test_shards_variants_and_halves_are_read(tmp_path, caplog):
    path = edited(tmp_path)
    expected = facts(path)
    tensors = dict(open_tensors(path / WEIGHTS))
    (path / WEIGHTS).unlink()
    parts = (dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2]))
    index = {}
    for number, part in enumerate(parts):
        name = f"diffusion_pytorch_model-0000{number + 1}-of-00002.safetensors"
        save_tensors(path / name, part)
        index |= dict.fromkeys(part, name)
    (path / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": index}))
    assert facts(path) == expected
    for name in path.glob(f"{WEIGHTS.removesuffix('.safetensors')}*"):
        name.unlink()
    for dtype in (torch.float16, torch.bfloat16):
        halves = {name: torch.tensor(tensor).to(dtype) for name, tensor in tensors.items()}
        save_torch_file(halves, path / "diffusion_pytorch_model.fp16.safetensors")
        decoder, constants = facts(path)
        assert decoder == expected[0]
        np.testing.assert_allclose(
            constants["latent_mean"], expected[1]["latent_mean"], rtol=1e-2, atol=1e-2
        )
    assert "taking the variant diffusion_pytorch_model.fp16.safetensors" in caplog.text


@pytest.mark.usefixtures("no_network_is_built")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scaling_factor": 0}, r"scaling_factor: got 0\.0; expected more than 0, in "),
        ({"scaling_factor": None}, "scaling_factor: got None; expected a number"),
        ({"reshape_to_2d": "yes"}, "reshape_to_2d: got 'yes'; expected true or false"),
        ({"encoder_patch_size": [14, 16]}, r"encoder_patch_size: got \[14, 16\]; expected a whole"),
        ({"encoder_input_size": 57}, "encoder_input_size: got 57; expected a multiple of 14"),
        ({"encoder_hidden_size": 48}, "encoder_hidden_size: got 48; expected a multiple of 64"),
        ({"encoder_norm_mean": [0.5]}, r"encoder_norm_mean: got \[0\.5\]; expected three numbers"),
        ({"decoder_num_attention_heads": 0}, "decoder_num_attention_heads: got 0; expected more"),
    ],
)
def test_odd_configs_are_refused_in_one_line(change, message, tmp_path):
    with pytest.raises(WeightsError, match=message) as caught:
        read_diffusers(edited(tmp_path, **change))
    assert "\n" not in str(caught.value)
