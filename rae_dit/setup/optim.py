"""Config -> learning-rate schedule and optimizer."""

import functools
from typing import Any

import optax
from flax import nnx

from rae_dit.config import Config
from rae_dit.models.layers import Constant
from rae_dit.setup.compute import compute_dtype
from rae_dit.training.muon import muon_and_adamw
from rae_dit.training.optim import adamw, learning_rate, sgd


def make_schedule(config: Config) -> optax.Schedule:
    """Makes the learning rate as a function of the optimizer step."""
    return functools.partial(
        learning_rate,
        peak=config.optim.learning_rate,
        warmup_steps=config.optim.warmup_steps,
        warmup_from_zero=config.optim.warmup_from_zero,
        decay=config.optim.decay,
        decay_end_step=config.optim.decay_end_step,
        final=config.optim.final_learning_rate,
    )


def make_optimizer(config: Config, module: nnx.Module) -> optax.GradientTransformation:
    """Makes the optimizer of a network behind a clip by global norm.

    Args:
        config: `optim.*` is read.
        module: the trained network, arrays or shapes; its constants never decay, and Muon takes the
            parameters that it calls matrices.
    """
    decays = nnx.map_state(
        lambda _, variable: not isinstance(variable, Constant), nnx.state(module)
    )
    optim, schedule = config.optim, make_schedule(config)
    shared: dict[str, Any] = {
        "weight_decay": optim.weight_decay,
        "clip_norm": optim.clip_norm,
        "decay_mask": nnx.to_pure_dict(decays),
    }
    adam: dict[str, Any] = {"beta1": optim.beta1, "beta2": optim.beta2, "epsilon": optim.epsilon}
    match optim.name:
        case "adamw":
            return adamw(schedule, **adam, **shared)
        case "sgd":
            return sgd(schedule, momentum=optim.momentum, **shared)
        case "muon":
            matrices, dtype = count_matrices(module), compute_dtype(config)
            return muon_and_adamw(
                schedule, momentum=optim.momentum, matrices=matrices, dtype=dtype, **adam, **shared
            )


def count_matrices(module: nnx.Module) -> dict:
    """Reads off each parameter how many matrices it joins: a tree of int, 0 for no matrix."""
    counts = nnx.map_state(
        lambda _, variable: variable.get_metadata().get("matrices", 0), nnx.state(module)
    )
    return nnx.to_pure_dict(counts)
