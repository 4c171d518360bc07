"""The learning rate against the reference's, and what the optimizer must not touch."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from rae_dit.training.optim import adamw, learning_rate, sgd

GOLDEN = json.loads((Path(__file__).parent / "golden" / "schedules.json").read_text())
SCHEDULES = [name for name, value in GOLDEN.items() if isinstance(value, dict)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_rate_at_every_step_is_the_reference_s(name):
    config = GOLDEN[name]["config"]
    epoch = GOLDEN["steps_per_epoch"]
    rates = [
        learning_rate(
            jnp.int32(step),
            peak=config["base_lr"],
            warmup_steps=config["warmup_epochs"] * epoch,
            warmup_from_zero=config["warmup_from_zero"],
            decay=config["type"],
            decay_end_step=config["decay_end_epoch"] * epoch,
            final=config["final_lr"],
        )
        for step in GOLDEN["steps"]
    ]
    np.testing.assert_allclose(rates, GOLDEN[name]["lr"], rtol=1e-5)


def test_constant_stays():
    rate = learning_rate(
        jnp.int32(10**6),
        peak=1e-3,
        warmup_steps=5,
        warmup_from_zero=True,
        decay="constant",
        decay_end_step=0,
        final=0.0,
    )
    assert float(rate) == pytest.approx(1e-3)


def test_unknown_decay_is_named():
    with pytest.raises(ValueError, match=r"'exponential'.*'cosine'"):
        learning_rate(
            jnp.int32(0),
            peak=1.0,
            warmup_steps=0,
            warmup_from_zero=False,
            decay="exponential",
            decay_end_step=1,
            final=0.0,
        )


def make(clip_norm=1.0, weight_decay=0.0):
    return adamw(
        lambda step: jnp.float32(0.1),
        beta1=0.9,
        beta2=0.95,
        epsilon=1e-8,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        decay_mask={"kernel": True, "constant": False},
    )


def make_sgd(clip_norm):
    mask = {"kernel": True, "constant": False}
    return sgd(
        lambda step: jnp.float32(0.1),
        momentum=0.9,
        weight_decay=0.0,
        clip_norm=clip_norm,
        decay_mask=mask,
    )


PARAMS = {"kernel": jnp.ones(4), "constant": jnp.ones(4)}


def test_weight_decay_skips_constants():
    optimizer = make(weight_decay=0.5)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["constant"], np.zeros(4))
    np.testing.assert_allclose(updates["kernel"], np.full(4, -0.05), rtol=1e-6)


def test_gradient_is_clipped_by_its_global_norm():
    optimizer = make(clip_norm=2.0)
    gradient = {"kernel": jnp.full(4, 3.0), "constant": jnp.full(4, 4.0)}  # norm 10
    _, state = optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)
    moment = optax.tree_utils.tree_get(state, "mu")
    np.testing.assert_allclose(moment["kernel"], np.full(4, 0.1 * 3.0 / 5), rtol=1e-5)


def test_gradient_descent_is_torch_s():
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    theirs = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.01)
    ours = sgd(
        lambda step: jnp.float32(0.1),
        momentum=0.9,
        weight_decay=0.01,
        clip_norm=None,
        decay_mask={"kernel": True, "constant": False},
    )
    params = {"kernel": jnp.float32([1.0, -2.0, 0.5]), "constant": jnp.float32([3.0])}
    state = ours.init(params)
    for number in range(1, 5):
        gradient = np.float32([30.0, -1.0, 0.1]) * number
        weight.grad = torch.tensor(gradient)
        theirs.step()
        updates, state = ours.update(
            {"kernel": jnp.asarray(gradient), "constant": jnp.zeros(1)}, state, params
        )
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["kernel"], weight.detach().numpy(), rtol=1e-6)
    np.testing.assert_array_equal(params["constant"], [3.0])


@pytest.mark.parametrize("make_one", [make, make_sgd])
def test_gradient_descent_is_clipped_too_and_either_need_not_be(make_one):
    gradient = {"kernel": jnp.full(4, 3.0), "constant": jnp.full(4, 4.0)}  # norm 10
    moments = {}
    for norm in (2.0, 20.0, None):
        optimizer = make_one(clip_norm=norm)
        _, state = optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)
        name = "trace" if make_one is make_sgd else "mu"
        moments[norm] = optax.tree_utils.tree_get(state, name)["kernel"]
    np.testing.assert_allclose(5 * moments[2.0], moments[20.0], rtol=1e-6)
    np.testing.assert_array_equal(moments[20.0], moments[None])
