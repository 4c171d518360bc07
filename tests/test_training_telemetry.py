"""Telemetry of a run: what the model does, on any devices the same; nothing where nobody looks."""

import jax
import numpy as np
import pytest
from flax import nnx
from support.small_run import batches, small_config

from rae_dit.models.activation_stats import activation_stats
from rae_dit.setup import models
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh, shard_batch


def wave(leaf):
    return leaf + 0.02 * np.cos(np.arange(leaf.size)).reshape(leaf.shape).astype(np.float32)


def parts(devices, config):
    """A program and what it looks at: one batch, and parameters that are not those of the start.

    There all blocks are idle.
    """
    mesh = make_mesh(config.sharding.fsdp, jax.devices()[:devices])
    program = make_program(config, mesh)
    params = jax.tree.map(wave, program.create().params)
    frozen = make_task(config).load_frozen(mesh)
    return program, params, frozen, shard_batch(batches(config, 1)[0], mesh)


def telemetry(devices, config, seed=0):
    program, *seen = parts(devices, config)
    values = program.telemetry(*seen, jax.random.key(seed))
    return {name: float(value) for name, value in values.items()}


def test_it_is_what_the_model_does_on_the_noised_batch():
    """Written down plainly; the labels are the batch's own, though training would drop most."""
    config = small_config(**{"ddt.class_dropout": 0.9})
    found = telemetry(1, config, seed=5)
    _, params, frozen, batch = parts(1, config)
    graph = nnx.graphdef(models.abstract(models.make_ddt, config))
    sample_inputs = make_task(config).validation.sample_inputs

    @jax.jit
    def look(params, frozen, batch):
        example = sample_inputs(frozen, batch, jax.random.key(5))
        t = example["t"][:, None, None, None]
        noised = (1 - t) * example["latent"] + t * example["noise"]
        return activation_stats(nnx.merge(graph, params), noised, example["t"], batch["label"])

    seen = look(params, frozen, batch)
    logits = [float(logit) for stack in seen.values() for logit in stack.logit]
    expected = {"train/attention_logit_max": max(logits)}
    for stack, number in (("backbone", 0), ("backbone", 1), ("head", 0)):
        block = f"{stack}_{number:02d}"
        expected[f"rms/{block}"] = float(seen[stack].rms[number])
        expected[f"attention_logit/{block}"] = float(seen[stack].logit[number])
    assert found == pytest.approx(expected, rel=1e-5)
    assert len({round(value, 4) for value in found.values()}) == 6  # so names are tested


def test_eight_devices_and_fsdp_see_what_one_sees():
    alone = telemetry(1, small_config())
    assert len(alone) == 1 + 2 * 3  # three blocks
    assert all(np.isfinite(value) for value in alone.values())
    fsdp = telemetry(8, small_config(**{"sharding.fsdp": 8, "compute.scan_layers": True}))
    assert fsdp == pytest.approx(alone, rel=1e-3)


@pytest.mark.parametrize("changes", [{"metrics.telemetry": False}, {"objective": "reconstruction"}])
def test_nobody_looks(changes):
    assert make_program(small_config(**changes), make_mesh(1)).telemetry is None
