"""The EMA after 100 steps is what its formula says, leaf by leaf."""

import jax
import numpy as np
from support.run_processes import config_of
from support.small_run import batches, host

from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh, shard_batch

STEPS, DECAY = 100, 0.97


def assert_close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), host(a), b)


def test_closed_form_after_a_hundred_steps():
    """e_n = d^n p_0 + (1 - d) sum_k d^(n-k) p_k, in float64 from the parameters of every step."""
    changes = {"ema.decay": DECAY, "optim.max_steps": STEPS, "decoder.depth": 2}
    moving = {"optim.warmup_from_zero": False, "optim.learning_rate": 5e-3}  # from the first step
    config = config_of(changes | moving)
    mesh = make_mesh(1, jax.devices()[:1])
    program = make_program(config, mesh)
    state, frozen = program.create(), make_task(config).load_frozen(mesh)

    def weighted(params, weight):
        return jax.tree.map(lambda leaf: weight * np.float64(leaf), host(params))

    expected = weighted(state.params, DECAY**STEPS)
    first = host(state.params)
    for number, batch in enumerate(batches(config, STEPS), 1):
        state, _ = program.step(state, frozen, shard_batch(batch, mesh))
        part = weighted(state.params, (1 - DECAY) * DECAY ** (STEPS - number))
        expected = jax.tree.map(np.add, expected, part)
        if number == 1:
            blend = jax.tree.map(
                lambda p, q: DECAY * p + (1 - DECAY) * q, first, host(state.params)
            )
            assert_close(state.ema, blend)
    ema, last = host(state.ema), host(state.params)
    assert_close(ema, expected)
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), first, last))
    apart = jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), ema, last))
    assert sum(moved) > 0.1  # it was no standstill
    assert sum(apart) > 0.01  # nor did the average follow at once
    # What is not trained is its own average to the bit: rounding does not add up.
    np.testing.assert_array_equal(ema["position"], first["position"])
