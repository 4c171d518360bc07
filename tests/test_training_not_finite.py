"""NaN in a batch, a gradient, an update or a parameter: the step is skipped, or the run stopped."""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from support.run_processes import config_of
from support.small_run import assert_trees_equal, batches, host

from rae_dit.checkpoint.manager import restore_state
from rae_dit.modes.train import train
from rae_dit.objectives.base import Objective
from rae_dit.setup import objectives
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.program import Program, build_program
from rae_dit.training.sharding import make_mesh, shard_batch
from rae_dit.training.state import TrainState
from rae_dit.training.step import train_step
from rae_dit.training.task import Task

UNTOUCHED = ("params", "ema", "opt_state", "key")


def assert_skipped(after: TrainState, before: TrainState) -> None:
    """Only the counters moved."""
    for name in UNTOUCHED:
        assert_trees_equal(getattr(after, name), getattr(before, name))
    assert int(after.step) == int(before.step) + 1
    assert int(after.bad_steps) == int(before.bad_steps) + 1
    assert int(after.last_good_step) == int(before.last_good_step)


class Run(NamedTuple):
    """A run of two steps, so that no moment is zero any more."""

    program: Program
    frozen: dict
    batches: list[dict[str, jax.Array]]
    state: TrainState

    def step(self, state: TrainState, batch: dict[str, jax.Array]) -> TrainState:
        """The next state; the old one stays."""
        copy = jax.tree.map(jnp.copy, state)
        return self.program.step(copy, self.frozen, batch)[0]


@pytest.fixture(scope="module")
def run() -> Run:
    config = config_of({})
    mesh = make_mesh(1, jax.devices()[:1])
    program, frozen = make_program(config, mesh), make_task(config).load_frozen(mesh)
    placed = [shard_batch(batch, mesh) for batch in batches(config, 4)]
    state = program.create()
    for batch in placed[:2]:
        state, _ = program.step(state, frozen, batch)
    return Run(program, frozen, placed, state)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_bad_pixel_of_a_batch(run: Run, value: float) -> None:
    batch = run.batches[2] | {"image": run.batches[2]["image"].at[1, 2, 3, 0].set(value)}
    after = run.step(run.state, batch)
    assert_skipped(after, run.state)
    next_one = run.step(after, run.batches[3])  # and the run goes on
    assert (int(next_one.step), int(next_one.last_good_step)) == (4, 4)


def test_one_bad_number_of_a_parameter(run: Run) -> None:
    leaves, tree = jax.tree.flatten(run.state.params)
    largest = max(range(len(leaves)), key=lambda i: leaves[i].size)
    leaves[largest] = leaves[largest].at[(0,) * leaves[largest].ndim].set(jnp.nan)
    values = vars(run.state) | {"params": jax.tree.unflatten(tree, leaves)}
    before = TrainState(**values)
    after = run.step(before, run.batches[2])
    assert_skipped(after, before)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(host(after.ema)))


@jax.custom_vjp
def product(x: jax.Array, p: jax.Array) -> jax.Array:
    """Value x p, and a gradient of NaN where x is 13."""
    return x * p


def _backward(x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros_like(x), jnp.sum(jnp.where(x == 13, jnp.nan, x) * cotangent)


product.defvjp(lambda x, p: (x * p, x), _backward)
SIMPLE = Objective(
    sample_inputs=lambda frozen, batch, key: batch,
    loss=lambda params, frozen, example: (product(example["x"], params["p"]), {}),
)


def simple_step(x: list[float], optimizer: optax.GradientTransformation, parts: int) -> TrainState:
    """One step at the bad hour of `optimizer`, after which `state_before` is given."""
    state, _ = train_step(
        state_before(optimizer),
        {},
        {"x": jnp.asarray(x, jnp.float32)},
        objective=SIMPLE,
        optimizer=optimizer,
        ema_decay=0.75,
        accumulate_steps=parts,
    )
    return state


def state_before(optimizer: optax.GradientTransformation) -> TrainState:
    params = {"p": jnp.float32(2)}
    _, opt_state = optimizer.update({"p": jnp.float32(1)}, optimizer.init(params), params)
    return TrainState(
        step=jnp.int32(1),
        params=params,
        ema={"p": jnp.float32(5)},
        opt_state=opt_state,
        key=jax.random.key(0),
        bad_steps=jnp.int32(0),
        last_good_step=jnp.int32(1),
    )


@pytest.mark.parametrize("parts", [1, 2])
def test_a_bad_gradient_of_a_finite_loss(parts: int) -> None:
    optimizer = optax.adamw(0.1)
    for x in ([13.0, 1, 2, 3], [1.0, 2, 3, 13]):  # in the first, or the last micro-batch
        assert_skipped(simple_step(x, optimizer, parts), state_before(optimizer))
    good = simple_step([12.0, 1, 2, 3], optimizer, parts)
    assert (int(good.last_good_step), int(good.bad_steps)) == (2, 0)


def spoiled(
    optimizer: optax.GradientTransformation, good_updates: int
) -> optax.GradientTransformation:
    """The optimizer, with updates of NaN after some good ones."""
    rate = optax.scale_by_schedule(lambda count: jnp.where(count < good_updates, 1.0, jnp.nan))
    return optax.chain(optimizer, rate)


def test_a_bad_update_of_a_finite_gradient() -> None:
    optimizer = spoiled(optax.adamw(0.1), 1)
    assert_skipped(simple_step([1.0, 2], optimizer, 1), state_before(optimizer))


class Factor(nnx.Module):
    """One parameter."""

    def __init__(self) -> None:
        self.p = nnx.Param(jnp.float32(2))


def test_the_logged_rate_is_the_one_that_was_used() -> None:
    """The optimizer's schedule stands still at a skipped step; the gradient is mean x."""

    def schedule(count: jax.Array) -> jax.Array:
        return 0.1 * (count + 1)

    optimizer = optax.sgd(schedule)
    task = Task(
        objective=SIMPLE,
        validation=SIMPLE,
        create=lambda rngs: Factor(),
        module=nnx.eval_shape(Factor),
        optimizer=optimizer,
        schedule=schedule,
        step=functools.partial(
            train_step, objective=SIMPLE, optimizer=optimizer, ema_decay=0.5, accumulate_steps=1
        ),
        work=(),
        load_frozen=lambda mesh: {},
    )
    program = build_program(task, make_mesh(1, jax.devices()[:1]), seed=0)
    state, used, logged = program.create(), [], []
    for x in (1.0, 13.0, 13.0, 3.0, 5.0):
        before = float(state.params["p"])
        state, metrics = program.step(
            state, {}, {"x": jnp.full(4, x), "image": jnp.zeros((4, 1, 1, 3))}
        )
        if x != 13:
            used.append((before - float(state.params["p"])) / x)
            logged.append(float(metrics["lr"]))
    assert used == pytest.approx([0.1, 0.2, 0.3], rel=1e-5)
    assert logged == pytest.approx(used, rel=1e-5)


def test_an_optimizer_that_stays_bad_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three good updates; two bad ones in a row are allowed nowhere."""
    make = objectives.make_optimizer
    monkeypatch.setattr(
        objectives, "make_optimizer", lambda config, module: spoiled(make(config, module), 3)
    )
    settings = {
        "checkpoint.save_every": 1,
        "metrics.validate_every": 1000,
        "optim.max_steps": 9,
        "optim.max_consecutive_bad_steps": 2,
    }
    config = config_of(settings)
    with pytest.raises(RuntimeError, match="at every step from 4 to 5;"):
        train(config, tmp_path)
    abstract = make_program(config, make_mesh(1)).abstract
    good, bad = (restore_state(tmp_path / "checkpoints" / step, abstract)[0] for step in "34")
    assert_skipped(bad, good)
