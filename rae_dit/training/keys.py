"""Random keys of a run, by name: one split of its seed."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Key


class RunKeys(NamedTuple):
    """Independent keys, typed PRNG keys [].

    Attributes:
        model: of initial weights.
        run: of the steps' random numbers; the state holds it.
        discriminator: of its initial weights.
        validation: of the held-out batches' random numbers.
    """

    model: Key[Array, ""]
    run: Key[Array, ""]
    discriminator: Key[Array, ""]
    validation: Key[Array, ""]


def run_keys(seed: int) -> RunKeys:
    """Splits a run's seed.

    Key i of a split is the seed's key folded with i, however many there are; so the order stays,
    new keys go last, and nothing else may fold small numbers into the seed's key.
    """
    return RunKeys(*jax.random.split(jax.random.key(seed), len(RunKeys._fields)))
