"""Named keys of a run are those of before, and no two of them are one."""

import jax
import numpy as np

from rae_dit.training.keys import run_keys


def numbers(key: jax.Array) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_no_two_keys_of_neighboring_seeds_are_the_same() -> None:
    """Nor the keys of the first thousand validation batches, which once were those of the run."""
    found = [numbers(key) for seed in range(5) for key in run_keys(seed)]
    batches = jax.vmap(jax.random.fold_in, (None, 0))(run_keys(0).validation, np.arange(1000))
    found += [tuple(row) for row in np.asarray(jax.random.key_data(batches)).tolist()]
    assert len(set(found)) == 5 * 4 + 1000


def test_initial_weights_and_steps_draw_as_before() -> None:
    model, run = jax.random.split(jax.random.key(3))
    assert [numbers(key) for key in run_keys(3)[:2]] == [numbers(model), numbers(run)]
