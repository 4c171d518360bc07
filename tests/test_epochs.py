"""Lengths in epochs become lengths in steps before anything is compiled."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.golden_files import GOLDEN
from support.small_run import small_config

from rae_dit.config import ConfigError
from rae_dit.setup.optim import make_schedule
from rae_dit.setup.run import open_run
from rae_dit.training.sharding import make_mesh

SCHEDULES = json.loads((GOLDEN / "schedules.json").read_text())


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_rate_at_every_step_is_the_reference_s(name):
    golden = SCHEDULES[name]["config"]
    config = small_config(
        **{
            "optim.learning_rate": golden["base_lr"],
            "optim.warmup_epochs": float(golden["warmup_epochs"]),
            "optim.warmup_from_zero": golden["warmup_from_zero"],
            "optim.decay": golden["type"],
            "optim.decay_end_epoch": float(golden["decay_end_epoch"]),
            "optim.final_learning_rate": golden["final_lr"],
            "optim.max_epochs": 6.0,
        }
    )
    config = in_steps(config, SCHEDULES["steps_per_epoch"])
    assert config.optim.max_steps == 60
    rates = [make_schedule(config)(jnp.int32(step)) for step in SCHEDULES["steps"]]
    np.testing.assert_allclose(rates, SCHEDULES[name]["lr"], rtol=1e-5)


def in_steps(config, steps_per_epoch):
    return dataclasses.replace(config, optim=config.optim.in_steps(steps_per_epoch))


def test_only_what_is_given_changes_and_parts_are_rounded():
    before = small_config(**{"optim.max_epochs": 2.26}).optim
    after = before.in_steps(10)
    assert (after.max_steps, after.max_epochs) == (23, None)
    assert (after.warmup_steps, after.decay_end_step) == (
        before.warmup_steps,
        before.decay_end_step,
    )
    assert not after.in_epochs
    assert after.in_steps(10**6) is after


def test_lengths_that_do_not_fit_are_refused_when_they_are_known():
    config = small_config(**{"optim.warmup_epochs": 5.0, "optim.decay_end_epoch": 4.0})
    with pytest.raises(ConfigError, match=r"^optim.decay_end_step: got 40; .* = 50$"):
        config.optim.in_steps(10)
    config = small_config(**{"optim.decay_end_step": 5, "optim.warmup_epochs": 0.1})
    assert config.optim.in_steps(10).warmup_steps == 1  # 5 as it stood did not fit, 1 does


def test_a_batch_larger_than_the_data_is_refused_before_anything_is_built():
    config = small_config(**{"data.batch_size": 2000, "optim.max_epochs": 2.0})
    with pytest.raises(ConfigError, match=r"^data.batch_size: got 2000; expected at most 1024, "):
        open_run(config, make_mesh(1, jax.devices()[:1]))


def test_an_evaluation_that_cannot_be_made_is_refused_before_anything_is_built(monkeypatch):
    """Encoder and decoder may take minutes to read."""
    changes = {"judge": "inception", "inception": "nowhere.pth", "metrics": ("fid",)}
    config = small_config(
        **{f"evaluate.{name}": value for name, value in changes.items()},
        **{"metrics.evaluate_every": 2},
    )
    monkeypatch.setattr("rae_dit.setup.run.make_task", lambda config: pytest.fail("was built"))
    with pytest.raises(ConfigError, match=r"^evaluate.inception: got 'nowhere.pth'; expected "):
        open_run(config, make_mesh(1, jax.devices()[:1]))


def test_a_run_without_a_step_is_refused():
    config = small_config(**{"optim.max_epochs": 0.01})
    with pytest.raises(ConfigError, match=r"^optim.max_epochs: got 0.01; expected at least one"):
        config.optim.in_steps(10)
