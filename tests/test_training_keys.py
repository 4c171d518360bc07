"""Named keys of a run: those of before, but for the discriminator, which had the run's own."""

import jax
import numpy as np

from rae_dit.training.keys import run_keys


def numbers(key: jax.Array) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_no_two_keys_of_neighboring_seeds_are_the_same() -> None:
    found = [numbers(key) for seed in range(5) for key in run_keys(seed)]
    assert len(set(found)) == 5 * 4


def test_the_discriminator_shares_its_key_with_no_step_and_no_validation_batch() -> None:
    model, run, discriminator, validation = run_keys(0)
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    taken = {numbers(key) for key in fold(validation, np.arange(1000))}
    taken |= {numbers(key) for key in fold(run, np.arange(1000))}
    assert numbers(model) in taken  # kept for older runs; validation batch 0
    assert numbers(discriminator) not in taken


def test_weights_steps_and_validation_draw_as_before() -> None:
    seed = jax.random.key(3)
    model, run = jax.random.split(seed)
    keys = run_keys(3)
    assert [numbers(keys.model), numbers(keys.run)] == [numbers(model), numbers(run)]
    assert numbers(keys.validation) == numbers(seed)
