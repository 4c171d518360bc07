"""Config -> LPIPS, discriminator and training step of stage 1: what models.py is for the rest.

No default values (they live in configs/), no mathematics.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import optax
from flax import nnx

from rae_dit.config import Config
from rae_dit.models.discriminator import Heads
from rae_dit.models.features import DINO, Features
from rae_dit.models.lpips import LPIPS
from rae_dit.objectives.adversarial import hinge, vanilla
from rae_dit.objectives.augment import augment
from rae_dit.objectives.base import Objective
from rae_dit.setup import models
from rae_dit.training.gan_step import stage1_step
from rae_dit.training.gan_updates import Adversary, Perceptual
from rae_dit.training.optim import adamw, learning_rate
from rae_dit.training.step import train_step
from rae_dit.weights.discriminator import read_dino
from rae_dit.weights.lpips import read_lpips

Step = Callable[..., Any]
"""(state, frozen, batch) -> (state, metrics)."""


def has_discriminator(config: Config) -> bool:
    """Whether the run trains a discriminator besides the decoder."""
    return config.objective == "reconstruction" and config.gan.weight > 0


def make_step(
    config: Config, objective: Objective, optimizer: optax.GradientTransformation
) -> Step:
    """The training step: that of every act, or stage 1's where its loss is more than L1."""
    settings: dict[str, Any] = {
        "objective": objective,
        "optimizer": optimizer,
        "ema_decay": config.ema.decay,
        "accumulate_steps": config.optim.accumulate_steps,
    }
    perceptual = config.perceptual.weight > 0
    if config.objective != "reconstruction" or not (perceptual or has_discriminator(config)):
        return functools.partial(train_step, **settings)
    return functools.partial(
        stage1_step,
        rae_graph=models.rae_graph(config, decoder=True),
        perceptual=make_perceptual(config) if perceptual else None,
        adversary=make_adversary(config) if has_discriminator(config) else None,
        **settings,
    )


def make_perceptual(config: Config) -> Perceptual:
    """LPIPS as a term of the loss."""
    graph = nnx.graphdef(models.abstract(models.make_lpips, config))
    return Perceptual(graph, weight=config.perceptual.weight, start=config.perceptual.start)


def make_adversary(config: Config) -> Adversary:
    """The discriminator's structure and what trains it."""
    gan = config.gan
    heads = models.abstract(make_heads, config)
    schedule = functools.partial(
        learning_rate,
        peak=gan.learning_rate,
        warmup_steps=gan.warmup_steps,
        warmup_from_zero=config.optim.warmup_from_zero,
        decay=config.optim.decay,
        decay_end_step=gan.decay_end_step,
        final=gan.final_learning_rate,
    )
    optimizer = adamw(
        schedule,
        beta1=gan.beta1,
        beta2=gan.beta2,
        epsilon=config.optim.epsilon,
        weight_decay=config.optim.weight_decay,
        clip_norm=config.optim.clip_norm,
        decay_mask=jax.tree.map(lambda _: True, nnx.to_pure_dict(nnx.state(heads, nnx.Param))),
    )
    return Adversary(
        features=nnx.graphdef(models.abstract(make_features, config)),
        heads=nnx.graphdef(heads),
        optimizer=optimizer,
        schedule=schedule,
        loss={"hinge": hinge, "vanilla": vanilla}[gan.loss],
        augment=functools.partial(
            augment,
            probability=gan.augment_probability,
            translation=gan.augment_translation,
            colour=gan.augment_colour,
            cutout=gan.augment_cutout,
        ),
        weight=gan.weight,
        start=gan.start,
        discriminator_start=gan.discriminator_start,
        judge_noisy=gan.fakes == "noisy",
    )


def make_features(config: Config, rngs: nnx.Rngs) -> Features:
    """The discriminator's feature network with random weights."""
    wanted = config.discriminator
    encoder = wanted.features == "encoder"
    return Features(
        models.make_encoder(config, rngs) if encoder else make_dino(config, rngs),
        image_mean=config.encoder.image_mean if encoder else wanted.image_mean,
        image_std=config.encoder.image_std if encoder else wanted.image_std,
        layers=wanted.layers,
    )


def make_dino(config: Config, rngs: nnx.Rngs) -> DINO:
    """The vision transformer of DINO with random weights."""
    wanted = config.discriminator
    return DINO(
        input_size=wanted.input_size,
        patch_size=wanted.patch_size,
        hidden_size=wanted.hidden_size,
        depth=wanted.depth,
        num_heads=wanted.num_heads,
        intermediate_size=int(wanted.hidden_size * wanted.mlp_ratio),
        attention=config.compute.attention,
        scan_layers=config.compute.scan_layers,
        remat=config.compute.remat,
        dtype=models.compute_dtype(config),
        rngs=rngs,
    )


def make_heads(config: Config, rngs: nnx.Rngs) -> Heads:
    """The discriminator's trained heads with initial weights."""
    wanted = config.discriminator
    encoder = wanted.features == "encoder"
    return Heads(
        len(wanted.layers),
        config.encoder.hidden_size if encoder else wanted.hidden_size,
        kernel_size=wanted.kernel_size,
        dtype=models.compute_dtype(config),
        rngs=rngs,
    )


def pretrained_lpips(config: Config) -> LPIPS:
    """LPIPS from the files of `perceptual`; raises as `read_lpips`."""
    vgg, linear = Path(config.perceptual.vgg), Path(config.perceptual.linear)
    return read_lpips(vgg, linear, dtype=models.compute_dtype(config))


def pretrained_dino(config: Config) -> DINO:
    """DINO from the file `discriminator.pretrained`; raises as `read_dino`."""
    return read_dino(config.discriminator.pretrained, models.abstract(make_dino, config))
