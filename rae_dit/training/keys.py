"""Random keys of a run, by name; all of them come from its seed."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Key

DISCRIMINATOR = 2**32 - 2  # no number of a validation batch


class RunKeys(NamedTuple):
    """Typed PRNG keys [].

    Attributes:
        model: of initial weights.
        run: of the steps' random numbers; the state holds it.
        discriminator: of its initial weights.
        validation: held-out batch n draws with this one, folded with n.
    """

    model: Key[Array, ""]
    run: Key[Array, ""]
    discriminator: Key[Array, ""]
    validation: Key[Array, ""]


def run_keys(seed: int) -> RunKeys:
    """Derives the keys of a run.

    `validation` is the seed's own key, so that curves of older runs go on. Key i of a split is the
    key folded with i, so the first two validation batches share theirs with `model` and `run`:
    initial weights and steps draw with further keys, folded into these.
    """
    key = jax.random.key(seed)
    model, run = jax.random.split(key)
    return RunKeys(model, run, jax.random.fold_in(key, DISCRIMINATOR), validation=key)
