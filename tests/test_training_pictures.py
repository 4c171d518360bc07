"""Pictures of a stage-1 run, and what they need."""

import logging

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from support.run_processes import config_of
from support.small_run import small_config

from rae_dit import load_rae
from rae_dit.config import ConfigError
from rae_dit.modes.train import train
from rae_dit.sampling import codec, generate
from rae_dit.setup import data, hooks
from rae_dit.setup.run import check_held_out


def test_stage_1_reconstructs_the_same_held_out_images(tmp_path, monkeypatch):
    drawn = []
    draw = hooks.reconstruction_grid

    def spy(path, originals, reconstructions, **how):
        drawn.append((originals, reconstructions))
        draw(path, originals, reconstructions, **how)

    monkeypatch.setattr(hooks, "reconstruction_grid", spy)
    changes = {"metrics.sample_every": 3, "optim.max_steps": 4, "ema.decay": 0.5}
    config = config_of(changes | {"encoder.image_std": (1.0, 1.0, 1.0)})  # so wide: it overshoots
    train(config, tmp_path)
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["step_3.png", "step_4.png"]
    with Image.open(tmp_path / "pictures" / "step_4.png") as picture:
        assert picture.size[0] > 900
    (before, early), (after, late) = drawn
    held_out = data.open_source(config, "validation")
    expected = np.stack([held_out[i]["image"] for i in range(10)]) / np.float32(255)
    np.testing.assert_array_equal(before, expected)
    np.testing.assert_array_equal(after, expected)
    assert early.shape == expected.shape
    assert (early.min(), early.max()) == (0, 1)  # clipped
    assert not np.array_equal(early, late)
    averaged = codec.reconstruct(*nnx.split(load_rae(tmp_path)), expected)  # by the newest EMA
    np.testing.assert_allclose(late, averaged, atol=1e-6)


def test_samples_that_are_not_finite_are_a_warning_and_training_goes_on(
    tmp_path, monkeypatch, caplog
):
    make = generate.make_latents

    def spoiled(*arguments, **named):
        return make(*arguments, **named) * jnp.nan

    monkeypatch.setattr(generate, "make_latents", spoiled)
    changes = {"metrics.sample_every": 1, "metrics.evaluate_every": 2, "optim.max_steps": 2}
    monkeypatch.setattr(logging.getLogger("rae_dit"), "propagate", True)
    train(small_config(**changes), tmp_path)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    found = [line for line in warnings if "not finite" in line]
    assert [line.split(",")[0] for line in found] == ["step 1", "step 2", "step 2"]
    assert "image 0 (label 0) is not finite" in found[0]
    assert not (tmp_path / "pictures").exists()
    assert (tmp_path / "checkpoints" / "2").is_dir()
    assert "eval/" not in (tmp_path / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "reconstruction", "metrics.sample_every": 5},
        {"checkpoint.best_metric": "val/loss"},
        {"checkpoint.best_metric": "val_ema/loss"},
    ],
)
def test_held_out_images_that_are_asked_for_must_be_there(changes):
    config = config_of({"objective": "flow_matching"} | changes)
    with pytest.raises(ConfigError, match=r"^data.validation_path: got ''; .* because of \w+\."):
        check_held_out(config, None)


@pytest.mark.parametrize("changes", [{}, {"objective": "flow_matching", "metrics.sample_every": 5}])
def test_who_asks_for_none_needs_none(changes):
    check_held_out(config_of(changes), None)


def test_a_classifier_makes_no_images():
    with pytest.raises(ConfigError, match=r"^metrics.sample_every: got 5; expected None because"):
        config_of({"objective": "classification", "metrics.sample_every": 5})
