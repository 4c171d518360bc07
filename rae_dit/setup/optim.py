"""Config -> learning-rate schedule and optimizer."""

import functools

import optax
from flax import nnx

from rae_dit.config import Config
from rae_dit.models.layers import Constant
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
        module: the trained network, arrays or shapes; its constants never decay.
    """
    decays = nnx.map_state(
        lambda _, variable: not isinstance(variable, Constant), nnx.state(module)
    )
    decay_mask = nnx.to_pure_dict(decays)
    match config.optim.name:
        case "adamw":
            return adamw(
                make_schedule(config),
                beta1=config.optim.beta1,
                beta2=config.optim.beta2,
                epsilon=config.optim.epsilon,
                weight_decay=config.optim.weight_decay,
                clip_norm=config.optim.clip_norm,
                decay_mask=decay_mask,
            )
        case "sgd":
            return sgd(
                make_schedule(config),
                momentum=config.optim.momentum,
                weight_decay=config.optim.weight_decay,
                clip_norm=config.optim.clip_norm,
                decay_mask=decay_mask,
            )
