"""A whole stage-1 run with a discriminator, through the loop that every run uses."""

import json

import jax
import numpy as np
import pytest
from support.golden_files import GOLDEN
from support.small_run import assert_trees_equal, small_config

from rae_dit.checkpoint.manager import restore_state
from rae_dit.config import ConfigError
from rae_dit.modes.train import train
from rae_dit.setup import weights
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh
from rae_dit.weights.tensor_file import open_tensors

pytestmark = pytest.mark.slow

SETTINGS = {
    "objective": "reconstruction",
    "encoder.depth": 1,
    "decoder.depth": 1,
    "gan.weight": 0.75,
    "gan.discriminator_start": 1,
    "gan.start": 2,
    "gan.warmup_steps": 1,
    "gan.decay_end_step": 4,
    "discriminator.features": "encoder",
    "discriminator.layers": (0,),
    "discriminator.kernel_size": 3,
    "optim.max_steps": 4,
    "checkpoint.save_every": 1,
    "checkpoint.keep_last": 10,
    "metrics.log_every": 1,
    "metrics.validate_every": 4,
    "metrics.validate_batches": 1,
}
FILES = {  # LPIPS, and the features of the golden file
    "data.image_size": 16,
    "decoder.patch_size": 4,
    "perceptual.weight": 1.0,
    "discriminator.features": "dino",
    "discriminator.pretrained": str(GOLDEN / "disc_dino_tiny.pth"),
    "discriminator.input_size": 224,
    "discriminator.patch_size": 16,
    "discriminator.hidden_size": 48,
    "discriminator.depth": 3,
    "discriminator.num_heads": 3,
    "discriminator.layers": (2, 0, 2),
    "discriminator.kernel_size": 9,
}


def state_of(workdir, config):
    return restore_state(workdir, make_program(config, make_mesh(1)).abstract)[0]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Four steps in one go."""
    workdir = tmp_path_factory.mktemp("straight")
    train(small_config(**SETTINGS), workdir)
    return workdir


def test_two_steps_and_two_more_are_four_bit_for_bit(straight, tmp_path):
    train(small_config(**(SETTINGS | {"optim.max_steps": 2})), tmp_path)
    config = small_config(**SETTINGS)
    train(config, tmp_path)
    ours, theirs = state_of(tmp_path, config), state_of(straight, config)
    assert int(ours.discriminator.updates) == 3
    assert_trees_equal(ours, theirs)


def test_every_term_is_logged(straight):
    lines = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert [line["train/discriminator_loss"] > 0 for line in lines] == [False, True, True, True]
    assert [line["train/adaptive_weight"] > 0 for line in lines] == [False, False, True, True]
    assert all(line["train/loss"] == line["train/l1"] for line in lines)
    assert "val_ema/loss" in lines[-1]
    assert all(line["train/skipped"] == 0 for line in lines)


def test_stage_2_reads_the_averaged_decoder_of_such_a_run(straight):
    config = small_config(**SETTINGS)
    changes = {name: SETTINGS[name] for name in SETTINGS if not name.startswith("gan")}
    changes |= {"objective": "flow_matching", "decoder.checkpoint": str(straight)}
    mesh = make_mesh(1, jax.devices()[:1])
    decoder = weights.place_rae(small_config(**changes), mesh, decoder=True).parameters["decoder"]
    assert_trees_equal(decoder, state_of(straight, config).ema)


def test_the_files_of_the_config_are_what_is_loaded(tmp_path):
    mesh = make_mesh(1, jax.devices()[:1])
    settings = SETTINGS | FILES
    frozen = make_task(small_config(**settings)).load_frozen(mesh)
    assert frozen.keys() == {"rae", "lpips", "features"}
    tensors = open_tensors(GOLDEN / "disc_dino_tiny.pth")
    position = frozen["features"]["network"]["position"]
    np.testing.assert_array_equal(position, tensors["pos_embed"][0])

    missing = {"perceptual.vgg": str(tmp_path / "a"), "perceptual.linear": str(tmp_path / "b")}
    with pytest.raises(FileNotFoundError):
        make_task(small_config(**(settings | missing))).load_frozen(mesh)
    frozen = make_task(small_config(**SETTINGS)).load_frozen(mesh)
    assert frozen.keys() == {"rae", "features"}
    assert_trees_equal(frozen["features"]["network"], frozen["rae"]["encoder"])
    plain = small_config(**(SETTINGS | {"gan.weight": 0.0}))
    assert make_task(plain).load_frozen(mesh).keys() == {"rae"}
    assert make_task(plain).step.func.__name__ == "train_step"


def test_lengths_in_epochs_become_steps():
    config = small_config(
        **SETTINGS
        | FILES
        | {"gan.start_epoch": 8, "gan.discriminator_start_epoch": 6.5, "gan.decay_end_epoch": 9}
        | {"perceptual.start_epoch": 0.25}
    )
    gan = config.gan.in_steps(10)
    assert (gan.discriminator_start, gan.start) == (65, 80)
    assert (gan.warmup_steps, gan.decay_end_step) == (1, 90)
    assert config.perceptual.in_steps(10).start == 2
    assert gan.in_steps(99) == gan
    late = small_config(**(SETTINGS | {"gan.discriminator_start_epoch": 9}))
    with pytest.raises(ConfigError, match=r"gan.start: got 2; expected at least .* = 90"):
        late.gan.in_steps(10)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gan.start": 0}, ["gan.start: got 0", "gan.discriminator_start = 1"]),
        ({"gan.decay_end_step": 1}, ["gan.decay_end_step", "gan.warmup_steps = 1"]),
        ({"gan.final_learning_rate": 1.0}, ["gan.final_learning_rate", "gan.learning_rate"]),
        ({"gan.loss": "hing"}, ["gan.loss", "'hinge'"]),
        ({"perceptual.vgg": "a.pth"}, ["perceptual.linear", "both"]),
        ({"perceptual.linear": "a.pth"}, ["perceptual.vgg", "both"]),
        ({"discriminator.layers": (3,)}, ["discriminator.layers: got (3,)", "0 ... 2"]),
        ({"discriminator.layers": ()}, ["discriminator.layers: got ()", "one block or more"]),
        ({"discriminator.kernel_size": 8}, ["discriminator.kernel_size", "odd"]),
        ({"discriminator.input_size": 100}, ["discriminator.input_size", "16"]),
        ({"discriminator.features": "encoder"}, ["discriminator.pretrained", "'' because"]),
        ({"data.image_size": 8, "decoder.patch_size": 2}, ["perceptual.weight", "16 pixels"]),
        (
            {"discriminator.features": "encoder", "discriminator.pretrained": ""},
            ["discriminator.layers: got (2, 0, 2)", "0 ... 0"],
        ),
    ],
)
def test_impossible_settings_are_one_line(changes, words):
    with pytest.raises(ConfigError) as refused:
        small_config(**(SETTINGS | FILES | changes))
    assert "\n" not in str(refused.value)
    for word in words:
        assert word in str(refused.value)
