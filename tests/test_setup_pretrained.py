"""Weights of others in a run: trained on, sampled from, and refused where the config differs."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from support.golden_files import GOLDEN, arrays, channels_last, relative_error
from support.small_run import assert_trees_equal, small_config, take_steps

import rae_dit
from rae_dit.config import ConfigError
from rae_dit.modes.sample import sample
from rae_dit.modes.train import train
from rae_dit.setup import models, pretrained, weights
from rae_dit.setup.run import open_run
from rae_dit.training.run import initial_state
from rae_dit.training.sharding import make_mesh
from rae_dit.weights import released
from rae_dit.weights.mapping import WeightsError

FAMILIES = {
    "dinov2": {"input_size": 56, "patch_size": 14, "position_grid": 5, "num_registers": 4},
    "siglip2": {
        **{"family": "siglip", "input_size": 64, "patch_size": 16, "position_grid": 4},
        **{"num_registers": 0, "image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)},
    },
    "mae": {
        **{"family": "mae", "input_size": 64, "patch_size": 16, "position_grid": 4},
        "num_registers": 0,
    },
}
WIDTHS = {"hidden_size": 48, "depth": 3, "num_heads": 4}
DECODER = {
    **{"patch_size": 16, "hidden_size": 64, "depth": 3},
    **{"num_heads": 4, "intermediate_size": 128},
}
DDT = {"hidden_size": (48, 64), "depth": (3, 2), "num_heads": (4, 4)}  # that of ddt_default


def golden_config(family="dinov2", **changes):
    """A tiny run on a golden encoder, decoder and statistics."""
    values = {f"encoder.{name}": value for name, value in (FAMILIES[family] | WIDTHS).items()}
    values |= {f"decoder.{name}": value for name, value in DECODER.items()}
    values |= {
        "encoder.pretrained": str(GOLDEN / f"rae_{family}_encoder"),
        "encoder.statistics": str(GOLDEN / f"rae_{family}_stat.pt"),
        "decoder.pretrained": str(GOLDEN / f"rae_{family}_decoder"),
        "data.image_size": 64,
        "compute.scan_layers": True,  # compiles faster
    }
    return small_config(**(values | changes))


def ddt_config(**changes):
    """A stage-2 config for the golden DiT^DH, whose latents are 4 x 4 x 24."""
    values = {f"ddt.{name}": value for name, value in DDT.items()}
    values |= {
        "ddt.pretrained": str(GOLDEN / "ddt_default.pt"),
        "encoder.hidden_size": 24,
        "data.num_classes": 10,
        "compute.scan_layers": True,  # compiles faster
        "optim.max_steps": 1,
        "checkpoint.save_every": 1,
        "sample.num_samples": 4,
        "sample.batch_size": 8,
        "sample.num_steps": 3,
    }
    return small_config(**(values | changes))


def one_device():
    return make_mesh(1, jax.devices()[:1])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_s_autoencoder_is_the_reference_s(family):
    golden = arrays(f"rae_{family}")
    rae = nnx.merge(*weights.place_rae(golden_config(family), one_device(), decoder=True))
    latent = jax.jit(rae.encode)(channels_last(golden["image"]))
    assert relative_error(latent, channels_last(golden["latent"])) < 2e-5
    image = jax.jit(rae.decode)(latent)
    assert relative_error(image, channels_last(golden["reconstruction"])) < 2e-5


def test_two_steps_of_stage_2_on_a_pretrained_autoencoder():
    _, state, metrics = take_steps(golden_config(), 2)
    assert int(state.step) == 2
    assert all(0.5 < values["loss"] < 5 for values in metrics)  # normalised latents, zero model
    assert all(values["skipped"] == 0 for values in metrics)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("encoder.depth", 2, "encoder.depth: got 2; expected 3, which"),
        ("encoder.num_heads", 2, "encoder.num_heads: got 2; expected 4, which"),
        ("encoder.mlp_ratio", 2.0, "encoder.mlp_ratio: got 2.0; expected 4.0, which"),
        ("encoder.position_grid", 4, "encoder.position_grid: got 4; expected 5, which"),
        ("encoder.num_registers", 1, "encoder.num_registers: got 1; expected 4, which"),
        ("encoder.image_mean", (0.5, 0.5, 0.5), "encoder.image_mean: got (0.5, 0.5, 0.5); exp"),
        ("decoder.depth", 2, "decoder.depth: got 2; expected 3, which"),
        ("decoder.num_heads", 8, "decoder.num_heads: got 8; expected 4, which"),
        ("decoder.intermediate_size", 64, "decoder.intermediate_size: got 64; expected 128"),
    ],
)
def test_an_autoencoder_unlike_the_config_is_refused(field, value, message):
    with pytest.raises(ConfigError) as caught:
        weights.place_rae(golden_config(**{field: value}), one_device(), decoder=True)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ddt.hidden_size", (48, 32), "ddt.hidden_size: got (48, 32); expected (48, 64), which"),
        ("ddt.depth", (2, 2), "ddt.depth: got (2, 2); expected (3, 2), which"),
        ("ddt.num_heads", (2, 4), "ddt.num_heads: got (2, 4); expected (4, 4), which"),
        ("ddt.use_qknorm", True, "ddt.use_qknorm: got True; expected False, which"),
        ("flow.prediction", "x", "flow.prediction: got 'x'; expected 'v', which"),
        ("data.num_classes", 4, "data.num_classes: got 4; expected 10, which"),
        ("encoder.hidden_size", 16, "ddt.pretrained: got "),
    ],
)
def test_a_ddt_unlike_the_config_is_refused(field, value, message):
    with pytest.raises(ConfigError) as caught:
        pretrained.pretrained_ddt(ddt_config(**{field: value}))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_another_epsilon_is_refused(tmp_path):
    shutil.copytree(GOLDEN / "rae_dinov2_encoder", tmp_path / "encoder")
    path = tmp_path / "encoder" / "config.json"
    path.write_text(path.read_text().replace("1e-06", "1e-03"))
    with pytest.raises(ConfigError, match="norm epsilon"):
        pretrained.pretrained_encoder(
            golden_config(**{"encoder.pretrained": str(tmp_path / "encoder")})
        )


def test_missing_files_are_named():
    with pytest.raises(WeightsError, match=r"no file or directory \./nowhere"):
        pretrained.pretrained_ddt(ddt_config(**{"ddt.pretrained": "./nowhere"}))


def test_positions_of_diffusers_are_taken_as_they_are():
    content = json.loads((GOLDEN / "diffusers_mae" / "config.json").read_text())
    values = {
        "encoder.hidden_size": content["encoder_hidden_size"],
        "encoder.num_heads": 1,
        "decoder.pretrained": str(GOLDEN / "diffusers_mae"),
        "decoder.hidden_size": content["decoder_hidden_size"],
        "decoder.depth": content["decoder_num_hidden_layers"],
        "decoder.num_heads": content["decoder_num_attention_heads"],
        "decoder.intermediate_size": content["decoder_intermediate_size"],
    }
    # 4 x 4 tokens of diffusers lie elsewhere than 4 x 4 tokens of the reference; 16 x 16 do not.
    decoder = pretrained.pretrained_decoder(golden_config("mae", **values))
    columns = np.asarray(decoder.position[...])[1:5, 0]
    np.testing.assert_allclose(columns, np.sin([0, 4, 8, 12]), atol=1e-6)


def test_the_decoder_of_a_diffusers_directory_is_that_of_the_whole():
    whole = rae_dit.load_rae(GOLDEN / "diffusers_mae").decoder
    alone = released.read_decoder(GOLDEN / "diffusers_mae")
    assert nnx.graphdef(alone) == nnx.graphdef(whole)
    assert_trees_equal(nnx.to_pure_dict(nnx.state(alone)), nnx.to_pure_dict(nnx.state(whole)))


def test_a_new_run_starts_from_pretrained_weights():
    config = ddt_config()
    mesh = one_device()
    state = initial_state(open_run(config, mesh))
    released = rae_dit.load_ddt(GOLDEN / "ddt_default.pt")
    expected = nnx.to_pure_dict(nnx.state(released))
    assert_trees_equal(state.params, expected)
    assert_trees_equal(state.ema, expected)
    assert int(state.step) == 0


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    path = tmp_path_factory.mktemp("fine_tuned")
    train(ddt_config(), path)
    return path


def test_fine_tuning_moves_a_little_from_pretrained_weights(fine_tuned):
    ours = rae_dit.load_ddt(fine_tuned)
    released = rae_dit.load_ddt(GOLDEN / "ddt_default.pt")
    distance = relative_error(ours.final_linear.kernel[...], released.final_linear.kernel[...])
    assert 0 < distance < 0.1


def test_a_resumed_run_does_not_start_from_pretrained_weights(fine_tuned):
    nowhere = ddt_config(**{"ddt.pretrained": "./nowhere"})
    train(nowhere, fine_tuned)  # its one step is taken: nothing is left to do


def test_samples_of_released_weights_need_no_run(tmp_path):
    sample(ddt_config(), tmp_path)
    assert len(list((tmp_path / "samples").glob("*_*.png"))) == 4
    assert (tmp_path / "samples" / "grid.png").exists()


def test_the_run_s_own_checkpoint_comes_before_pretrained_weights(fine_tuned):
    nowhere = ddt_config(**{"ddt.pretrained": "./nowhere"})
    _, parameters = weights.place_ddt(nowhere, fine_tuned, one_device())
    own = rae_dit.load_ddt(fine_tuned)
    assert_trees_equal(parameters, nnx.to_pure_dict(nnx.state(own)))


def test_parameters_are_laid_out_over_the_mesh():
    config = ddt_config(**{"sharding.fsdp": 8})
    mesh = make_mesh(8)
    _, parameters = weights.place_ddt(config, GOLDEN, mesh)
    kernel = parameters["final_linear"]["kernel"]
    assert len(kernel.sharding.device_set) == 8
    assert kernel.addressable_shards[0].data.shape == (8, 24)
    module = models.abstract(models.make_ddt, config)
    assert jax.tree.structure(parameters) == jax.tree.structure(nnx.to_pure_dict(nnx.state(module)))
