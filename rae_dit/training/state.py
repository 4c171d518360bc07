"""Training state: the pytree that a step updates and a checkpoint stores."""

from dataclasses import dataclass
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiscriminatorState:
    """State of a stage-1 run's discriminator (training/gan_step.py).

    Attributes:
        params: nested dict of float32 arrays, the trained heads.
        vectors: nested dict of float32 arrays, u and v of their spectral norms.
        opt_state: the optax state of `params`.
        updates: int32 [], its own updates so far, which its learning rate follows.
    """

    params: dict[str, Any]
    vectors: dict[str, Any]
    opt_state: Any
    updates: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Plain pytree that goes through `jax.jit` (donated) and into the checkpoint.

    The model itself is not in here: it is drawn by NNX, split once when the state is made, and
    merged with `params` (or `ema`) where it is called. Frozen networks are arguments of the step.

    Attributes:
        step: int32 [], number of finished optimizer steps; the run starts at 0.
        params: nested dict of float32 arrays, the trained parameters.
        ema: nested dict of float32 arrays, same tree as `params`: their exponential moving average.
            It starts as a copy, never as an alias: donation would free the shared buffers twice.
        opt_state: the optax state of `params` (NamedTuples, EmptyState and None are all welcome).
        key: typed PRNG key [] of the run, constant: the step folds its number into it.
        bad_steps: int32 [], how many steps of the run were skipped because they were not finite.
        last_good_step: int32 [], number of the newest step that was not skipped, 0 before any.
            It is here and not in the loop, so that a run of bad steps is seen across restarts.
        discriminator: of a run with `gan.weight` > 0; None in any other.
    """

    step: jax.Array
    params: dict[str, Any]
    ema: dict[str, Any]
    opt_state: Any
    key: jax.Array
    bad_steps: jax.Array
    last_good_step: jax.Array
    discriminator: DiscriminatorState | None = None
