"""Laws of one training step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.small_run import batches, small_config

from rae_dit.objectives.base import Objective
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh
from rae_dit.training.state import TrainState
from rae_dit.training.step import accumulate, train_step


@pytest.fixture(scope="module")
def flow():
    """Objective, parameters, frozen networks and a drawn example of a small stage-2 run."""
    config = small_config()
    mesh = make_mesh(1, jax.devices()[:1])
    params = make_program(config, mesh).create().params
    # At initialisation the velocity is zero and most gradients with it.
    params = jax.tree.map(lambda p: p + 0.02 * jnp.cos(jnp.arange(p.size)).reshape(p.shape), params)
    frozen = make_task(config).load_frozen(mesh)
    objective = make_task(config).objective
    example = jax.jit(objective.sample_inputs)(frozen, batches(config, 1)[0], jax.random.key(3))
    return objective, params, frozen, example


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_is_one_big_batch(flow, parts):
    objective, params, frozen, example = flow
    run = jax.jit(functools.partial(accumulate, objective.loss), static_argnums=3)
    whole = run(params, frozen, example, 1)
    cut = run(params, frozen, example, parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), cut, whole)


def test_labels_are_dropped_at_the_given_rate():
    config = small_config(**{"ddt.class_dropout": 0.25, "data.batch_size": 512})
    frozen = make_task(config).load_frozen(make_mesh(1, jax.devices()[:1]))
    batch = batches(config, 1)[0]
    task = make_task(config)
    for objective, rate in ((task.objective, 0.25), (task.validation, 0.0)):
        label = jax.jit(objective.sample_inputs)(frozen, batch, jax.random.key(0))["label"]
        dropped = label == config.data.num_classes
        assert float(dropped.mean()) == pytest.approx(rate, abs=0.06)
        np.testing.assert_array_equal(label[~dropped], batch["label"][~dropped])


def line(params, frozen, example):
    """loss_i = x_i p: its gradient is the mean of x, and NaN goes straight through."""
    return example["x"] * params["p"], {}


SIMPLE = Objective(sample_inputs=lambda frozen, batch, key: batch, loss=line)


def simple_state():
    params = {"p": jnp.float32(2.0)}
    return TrainState(
        step=jnp.int32(7),
        params=params,
        ema={"p": jnp.float32(5.0)},
        opt_state=OPTIMIZER.init(params),
        key=jax.random.key(0),
        bad_steps=jnp.int32(4),
        last_good_step=jnp.int32(7),
    )


OPTIMIZER = optax.chain(optax.clip_by_global_norm(10.0), optax.sgd(0.5, momentum=0.9))


def simple_step(x):
    return train_step(
        simple_state(),
        {},
        {"x": jnp.asarray(x, jnp.float32)},
        objective=SIMPLE,
        optimizer=OPTIMIZER,
        ema_decay=0.75,
        accumulate_steps=1,
    )


def test_step_follows_the_gradient_and_ema_follows_the_step():
    state, metrics = simple_step([1.0, 3.0])
    assert float(state.params["p"]) == pytest.approx(2.0 - 0.5 * 2.0)
    assert float(state.ema["p"]) == pytest.approx(0.75 * 5.0 + 0.25 * 1.0)
    assert int(state.step) == 8
    assert float(metrics["loss"]) == pytest.approx(4.0)
    assert float(metrics["gradient_norm"]) == pytest.approx(2.0)
    assert float(metrics["skipped"]) == 0
    assert (int(state.bad_steps), int(state.last_good_step)) == (4, 8)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_nothing_but_its_number(bad):
    before = simple_state()
    state, metrics = simple_step([1.0, bad])
    assert float(metrics["skipped"]) == 1
    assert int(state.step) == 8
    assert (int(state.bad_steps), int(state.last_good_step)) == (5, 7)
    assert float(metrics["bad_steps"]) == 5
    for name in ("params", "ema", "opt_state"):
        jax.tree.map(
            np.testing.assert_array_equal,
            vars(state)[name],
            vars(before)[name],
        )


def test_random_numbers_follow_from_key_and_step():
    seen = []
    spy = Objective(
        sample_inputs=lambda frozen, batch, key: (seen.append(key), batch)[1], loss=line
    )
    for step in (7, 7, 8):
        state = simple_state()
        state = TrainState(**(vars(state) | {"step": jnp.int32(step)}))
        train_step(
            state,
            {},
            {"x": jnp.ones(2)},
            objective=spy,
            optimizer=OPTIMIZER,
            ema_decay=0.9,
            accumulate_steps=1,
        )
    first, again, other = (jax.random.key_data(key) for key in seen)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
