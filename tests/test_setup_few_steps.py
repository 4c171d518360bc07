"""Few-step runs from a config: where teacher and student come from, a step of each, refusals."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from support.small_run import batches, host, small_config

from rae_dit.config import ConfigError, check_devices
from rae_dit.planning.compiled import without_files
from rae_dit.setup import models
from rae_dit.setup.endpoint import endpoint_hook
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.setup.sampling import sampler_options
from rae_dit.setup.teacher import teacher_of
from rae_dit.training.sharding import make_mesh, shard_batch
from rae_dit.weights.official import export_ddt
from rae_dit.weights.tensor_file import save_tensors

CHANGES = {
    "objective": "mean_flow",
    "ddt.interval_embedding": True,
    "ddt.depth": (1, 1),
    "data.batch_size": 16,
    "flow.time_distribution": "uniform",
    "compute.scan_layers": True,
    "metrics.telemetry": False,
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A file with a DiT^DH of one time in which nothing is zero."""
    config = small_config(**{"ddt.depth": (1, 1)})
    ddt = models.abstract(models.make_ddt, config)
    random = np.random.default_rng(0)
    filled = jax.tree.map(
        lambda leaf: (0.1 * random.standard_normal(leaf.shape)).astype(np.float32),
        nnx.to_pure_dict(nnx.state(ddt)),
    )
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_tensors(path, export_ddt(nnx.merge(nnx.graphdef(ddt), filled)))
    return path, filled


def first_steps(config, devices, count=2):
    """Metrics of the first steps of a run, and its state before and after them."""
    mesh = make_mesh(1, jax.devices()[:devices])
    task, program = make_task(config), make_program(config, mesh)
    params, frozen = task.load_initial(mesh), task.load_frozen(mesh)
    start = host(params)
    state = program.create()
    state = dataclasses.replace(state, params=params, ema=jax.tree.map(np.copy, params))
    found = []
    for batch in batches(config, count):
        state, metrics = program.step(state, frozen, shard_batch(batch, mesh))
        found.append({name: float(value) for name, value in metrics.items()})
    return found, start, frozen, state, mesh


def test_distillation_starts_at_the_teacher_and_moves(teacher):
    path, weights = teacher
    config = small_config(
        **CHANGES,
        **{
            "few_step.teacher": str(path),
            "few_step.tangent_warmup_steps": 1,
            "few_step.endpoint_samples": 4,
            "few_step.endpoint_steps": 2,
            "few_step.solver_grid": "full",
            "flow.shift": 1.0,
        },
    )
    (first, second), start, frozen, state, mesh = first_steps(config, devices=2)
    added = start.pop("interval_embedding")
    jax.tree.map(np.testing.assert_array_equal, start, host(weights))
    assert not np.any(added["fc2"]["kernel"])
    assert first["error_instant"] < 1e-10
    assert first["error_interval"] < 1e-10  # the correction has not begun to fade in
    assert second["error_interval"] > 1e-6
    assert second["skipped"] == 0
    # Two jumps of a student that is its teacher are two steps of Euler's method on the same grid.
    hook = endpoint_hook(config, mesh, frozen, teacher_of(config))
    same = dataclasses.replace(state, ema=start | {"interval_embedding": added})
    distances = hook.call(1, same, {})
    assert distances["endpoint/2_steps"] < 1e-10
    assert distances["endpoint/1_step"] > 1e-7


def test_mid_training_takes_a_step(teacher):
    path, _ = teacher
    changes = {"objective": "trajectory", "few_step.pairs": 8, "few_step.solver_steps": 5}
    config = small_config(
        **(CHANGES | changes), **{"few_step.teacher": str(path), "few_step.cfg_scale": 2.0}
    )
    (first, second), *_ = first_steps(config, devices=2)
    assert first["loss"] > 1e-8
    assert second["loss"] > 1e-8
    assert first["skipped"] == second["skipped"] == 0


def test_a_plan_needs_no_teacher():
    config = without_files(small_config(**CHANGES, **{"few_step.teacher": "/nowhere"}))
    assert config.few_step.teacher == ""
    assert "teacher" in jax.eval_shape(
        lambda: make_task(config).load_frozen(make_mesh(1, jax.devices()[:1]))
    )


def test_fine_tuning_has_no_teacher():
    config = small_config(**CHANGES, **{"few_step.velocity": "data", "few_step.teacher": "/no"})
    frozen = jax.eval_shape(lambda: make_task(config).load_frozen(make_mesh(1, jax.devices()[:1])))
    assert set(frozen) == {"rae"}


def test_a_teacher_of_other_latents_is_refused(teacher):
    path, _ = teacher
    changes = {"few_step.teacher": str(path), "encoder.hidden_size": 96}
    with pytest.raises(
        ConfigError, match=r"^few_step.teacher: got .*; expected a model of latents"
    ):
        make_task(small_config(**CHANGES, **changes))


JUMPS = {"sample.method": "mean_flow", "sample.grid": "full", "sample.cfg_scale": 1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ddt.interval_embedding": False}, r"^ddt.interval_embedding: got False; expected True"),
        ({"objective": "flow_matching"}, r"^ddt.interval_embedding: got True; expected False"),
        (JUMPS | {"sample.cfg_scale": 2.0}, r"^sample.cfg_scale: got 2.0; expected 1 for method"),
        (JUMPS | {"sample.grid": "official", "sample.num_steps": 2}, r"^sample.grid: got"),
        ({"objective": "trajectory", "few_step.pairs": 5}, r"^data.batch_size: got 16; expected"),
        ({"few_step.solver_steps": 4}, r"^few_step.pairs: got 64; expected at most 6"),
        ({"few_step.guidance": "autoguidance"}, r"^few_step.guide_checkpoint: got ''"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        small_config(**(CHANGES | changes))


def test_batches_have_whole_groups_of_rows_on_every_device():
    config = small_config(**CHANGES, **{"optim.accumulate_steps": 2})
    check_devices(config, platform="cpu", num_devices=2, num_processes=1)
    with pytest.raises(ConfigError, match=r"^data.batch_size: got 16; expected a multiple of 32"):
        check_devices(config, platform="cpu", num_devices=4, num_processes=1)


def test_jumps_are_on_the_unshifted_grid():
    options = sampler_options(small_config(**CHANGES, **JUMPS, **{"sample.num_steps": 2}))
    assert (options.method, options.steps, options.shift) == ("mean_flow", 2, 1.0)
