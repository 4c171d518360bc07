"""Our own runs through the public interface."""

import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.small_run import assert_trees_equal, small_config

import rae_dit
from rae_dit import workdir
from rae_dit.checkpoint.manager import restore_state
from rae_dit.config import ConfigError, compatibility, to_dict
from rae_dit.modes.train import train
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh

ROOT = Path(__file__).parent.parent
STEPS = {
    "optim.max_steps": 2,
    "checkpoint.save_every": 1,
    "checkpoint.keep_last": 2,
    "compute.scan_layers": True,  # compiles faster
}


@pytest.fixture(scope="module")
def stage_2(tmp_path_factory):
    path = tmp_path_factory.mktemp("stage_2")
    train(small_config(**STEPS), path)
    return path


@pytest.fixture(scope="module")
def stage_1(tmp_path_factory):
    path = tmp_path_factory.mktemp("stage_1")
    train(small_config(**STEPS, objective="reconstruction"), path)
    return path


def test_a_run_is_found_from_each_of_its_directories(stage_2, tmp_path):
    step = stage_2 / "checkpoints" / "2"
    assert {workdir.find_run(p) for p in (stage_2, stage_2 / "checkpoints", step)} == {stage_2}
    assert workdir.find_run(tmp_path) is None
    assert workdir.find_run(stage_2 / "config.json") is None
    assert workdir.find_run("owner/repository") is None


def test_a_run_has_both_a_config_and_checkpoints(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert workdir.find_run(tmp_path) is None
    (tmp_path / "checkpoints").mkdir()
    assert workdir.find_run(tmp_path) == tmp_path
    (tmp_path / "config.json").unlink()
    assert workdir.find_run(tmp_path) is None


def test_the_newest_step_is_the_largest_number_of_those_that_are_whole(tmp_path):
    assert not workdir.has_checkpoint(tmp_path)
    assert workdir.newest_step(tmp_path) is None
    (tmp_path / "checkpoints" / "quarantined-30-0").mkdir(parents=True)
    assert not workdir.has_checkpoint(tmp_path)
    for name in ("2", "10", "20.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert workdir.has_checkpoint(tmp_path)
    assert workdir.newest_step(tmp_path) == 10


def test_load_ddt_opens_workdir_checkpoints_and_step(stage_2):
    def leaves(path):
        return nnx.to_pure_dict(nnx.state(rae_dit.load_ddt(path)))

    newest = leaves(stage_2)
    assert_trees_equal(newest, leaves(stage_2 / "checkpoints"))
    assert_trees_equal(newest, leaves(stage_2 / "checkpoints" / "2"))
    before = leaves(stage_2 / "checkpoints" / "1")
    assert not np.array_equal(before["embed_x"]["kernel"], newest["embed_x"]["kernel"])
    state, _ = restore_state(stage_2, make_program(small_config(**STEPS), make_mesh(1)).abstract)
    assert_trees_equal(newest, state.ema)
    assert not np.array_equal(state.params["embed_x"]["kernel"], newest["embed_x"]["kernel"])


def test_a_model_of_ours_can_be_sampled_and_computes_as_asked(stage_2):
    choices = {"attention": "xla", "scan_layers": False, "remat": "full"}
    ddt = rae_dit.load_ddt(stage_2, dtype=jnp.bfloat16, **choices)
    assert (ddt.dtype, ddt.backbone.remat, ddt.backbone.scan) == (jnp.bfloat16, "full", False)
    assert ddt.backbone.blocks.attention.implementation == "xla"
    usual = rae_dit.load_ddt(stage_2)
    assert usual.dtype == jnp.float32
    assert usual.backbone.blocks.attention.implementation == "auto"
    noise = np.zeros((2, 4, 4, 16), np.float32)
    assert rae_dit.sample_latents(ddt, noise, np.array([0, 3]), steps=2).shape == noise.shape
    with pytest.raises(ConfigError, match="dtype: got 'float16'"):
        rae_dit.load_ddt(stage_2, dtype=jnp.float16)


def test_load_rae_opens_a_reconstruction_run(stage_1):
    rae = rae_dit.load_rae(stage_1)
    image = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    assert rae.decode(rae.encode(image)).shape == image.shape
    other = rae_dit.load_rae(stage_1 / "checkpoints" / "1")
    assert not np.array_equal(rae.decoder.predict.kernel[...], other.decoder.predict.kernel[...])


def test_a_stage_2_run_without_a_decoder_encodes_only(stage_2):
    assert rae_dit.load_rae(stage_2).decoder is None


def test_a_run_of_another_stage_is_refused(stage_1):
    with pytest.raises(ConfigError, match="objective 'reconstruction'; load_ddt needs"):
        rae_dit.load_ddt(stage_1)


def test_a_config_of_another_version_is_named(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"seed": 1}))
    with pytest.raises(ConfigError, match=r"config\.json is not a config of this version: obj"):
        rae_dit.load_ddt(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is not a config of this version: Expecting"):
        rae_dit.load_ddt(tmp_path)


def test_importing_the_package_imports_no_jax():
    code = "import sys, rae_dit; print('jax' in sys.modules, rae_dit.__all__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("False ['load_ddt'")


def test_a_wrong_name_is_told_the_right_ones():
    with pytest.raises(AttributeError, match="'load_dit'; it offers load_ddt, load_rae"):
        rae_dit.load_dit  # noqa: B018


def test_a_config_of_before_a_field_is_read_with_what_it_did(tmp_path, monkeypatch):
    config = small_config()
    values = to_dict(config)
    del values["data"]["flip"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"data\.flip: missing"):
        workdir.read_config(tmp_path)
    monkeypatch.setitem(compatibility.ADDED, "data.flip", config.data.flip)
    assert workdir.read_config(tmp_path) == config


def test_a_config_that_is_a_list_is_named(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"config\.json .*got list; expected an object"):
        workdir.read_config(tmp_path)
