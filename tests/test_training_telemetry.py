"""Telemetry of a run: on any devices the same, and nothing where nobody looks."""

import jax
import numpy as np
import pytest
from small_run import batches, small_config

from rae_dit import loading
from rae_dit.training.program import make_program
from rae_dit.training.sharding import make_mesh, place_batch


def wave(leaf):
    return leaf + 0.02 * np.cos(np.arange(leaf.size)).reshape(leaf.shape).astype(np.float32)


def telemetry(devices, **changes):
    """On one batch, with parameters that are not those of the start: there all blocks are idle."""
    config = small_config(**changes)
    mesh = make_mesh(config.sharding.fsdp, jax.devices()[:devices])
    program = make_program(config, mesh)
    params = jax.tree.map(wave, program.create().params)
    frozen = loading.load_frozen(config, mesh)
    batch = place_batch(batches(config, 1)[0], mesh)
    values = program.telemetry(params, frozen, batch, jax.random.key(0))
    return {name: float(value) for name, value in values.items()}


def test_eight_devices_and_fsdp_see_what_one_sees():
    alone = telemetry(1)
    assert len(alone) == 1 + 2 * 3  # three blocks
    assert all(np.isfinite(value) for value in alone.values())
    fsdp = telemetry(8, **{"sharding.fsdp": 8, "compute.scan_layers": True})
    assert fsdp == pytest.approx(alone, rel=1e-3)


@pytest.mark.parametrize("changes", [{"metrics.telemetry": False}, {"objective": "reconstruction"}])
def test_nobody_looks(changes):
    assert make_program(small_config(**changes), make_mesh(1)).telemetry is None
