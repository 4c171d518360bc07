"""Config -> LPIPS, discriminator and training step of stage 1."""

import functools

import jax
import optax
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.architecture import EncoderArchitecture
from rae_dit.config import Config
from rae_dit.models.discriminator import Heads
from rae_dit.models.features import DINO, Features
from rae_dit.models.lpips import LPIPS
from rae_dit.objectives.adversarial import hinge, vanilla
from rae_dit.objectives.augment import augment
from rae_dit.objectives.base import Objective, Tree
from rae_dit.objectives.reconstruction import decode
from rae_dit.setup import models
from rae_dit.setup.compute import compute, compute_dtype
from rae_dit.storage.reading import local_copy
from rae_dit.training.gan_step import gan_step
from rae_dit.training.gan_updates import Discriminator, Perceptual, create_discriminator
from rae_dit.training.keys import run_keys
from rae_dit.training.optim import adamw, learning_rate
from rae_dit.training.state import DiscriminatorState
from rae_dit.training.task import Step
from rae_dit.weights.discriminator import read_dino
from rae_dit.weights.lpips import read_lpips


def make_step(
    config: Config, objective: Objective, optimizer: optax.GradientTransformation
) -> Step:
    """Makes the step of a decoder whose loss is more than L1."""
    return functools.partial(
        gan_step,
        objective=objective,
        optimizer=optimizer,
        ema_decay=config.ema.decay,
        accumulate_steps=config.optim.accumulate_steps,
        rae_graph=models.rae_graph(config, decoder=True),
        perceptual=make_perceptual(config) if config.perceptual.weight > 0 else None,
        gan=make_discriminator(config) if config.gan.weight > 0 else None,
    )


def initial_discriminator(config: Config) -> DiscriminatorState:
    """Creates the state of a new run's discriminator."""
    key = run_keys(config.seed).discriminator
    return create_discriminator(make_heads(config, nnx.Rngs(key)), make_discriminator(config))


def make_perceptual(config: Config) -> Perceptual:
    """Makes LPIPS as a term of the loss."""
    graph = nnx.graphdef(models.abstract(models.make_lpips, config))
    return Perceptual(graph, weight=config.perceptual.weight, start=config.perceptual.start)


def make_discriminator(config: Config) -> Discriminator:
    """Makes the discriminator's structure, optimizer and schedule."""
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
        epsilon=gan.epsilon,
        weight_decay=gan.weight_decay,
        clip_norm=gan.clip_norm,
        decay_mask=jax.tree.map(lambda _: True, nnx.to_pure_dict(nnx.state(heads, nnx.Param))),
    )
    return Discriminator(
        features=nnx.graphdef(models.abstract(make_features, config)),
        heads=nnx.graphdef(heads),
        optimizer=optimizer,
        schedule=schedule,
        loss={"hinge": hinge, "vanilla": vanilla}[gan.loss],
        augment=functools.partial(
            augment,
            probability=gan.augment_probability,
            translation=gan.augment_translation,
            color=gan.augment_colour,
            cutout=gan.augment_cutout,
        ),
        weight=gan.weight,
        start=gan.start,
        discriminator_start=gan.discriminator_start,
        fakes=functools.partial(
            reconstruct,
            models.rae_graph(config, decoder=True),
            "tokens" if gan.fakes == "noisy" else "clean_tokens",
        ),
        iterate_per_pass=gan.power_iteration == "per_pass",
    )


def reconstruct(
    rae_graph: nnx.GraphDef, name: str, decoder: Tree, frozen: Tree, inputs: Tree
) -> Float[Array, "B H W 3"]:
    """Decodes the tokens `inputs[name]`: the discriminator's fakes."""
    return decode(rae_graph, decoder, frozen, inputs[name])


def make_features(config: Config, rngs: nnx.Rngs) -> Features:
    """Makes the discriminator's feature network with random weights."""
    section = config.discriminator
    encoder = section.features == "encoder"
    return Features(
        models.make_encoder(config, rngs) if encoder else make_dino(config, rngs),
        image_mean=config.encoder.image_mean if encoder else section.image_mean,
        image_std=config.encoder.image_std if encoder else section.image_std,
        layers=section.layers,
    )


def make_dino(config: Config, rngs: nnx.Rngs) -> DINO:
    """Makes the vision transformer of DINO with random weights."""
    section = config.discriminator
    architecture = EncoderArchitecture(
        family="dino",
        input_size=section.input_size,
        patch_size=section.patch_size,
        position_grid=section.input_size // section.patch_size,
        hidden_size=section.hidden_size,
        depth=section.depth,
        num_heads=section.num_heads,
        intermediate_size=int(section.hidden_size * section.mlp_ratio),
        activation="gelu_tanh",
    )
    return DINO(architecture, compute(config), rngs=rngs)


def make_heads(config: Config, rngs: nnx.Rngs) -> Heads:
    """Makes the discriminator's trained heads with initial weights."""
    section = config.discriminator
    encoder = section.features == "encoder"
    return Heads(
        len(section.layers),
        config.encoder.hidden_size if encoder else section.hidden_size,
        kernel_size=section.kernel_size,
        dtype=compute_dtype(config),
        rngs=rngs,
    )


def pretrained_lpips(config: Config) -> LPIPS:
    """Reads LPIPS from the files of `perceptual`; raises as `read_lpips`."""
    vgg, linear = local_copy(config.perceptual.vgg), local_copy(config.perceptual.linear)
    return read_lpips(vgg, linear, dtype=compute_dtype(config))


def pretrained_dino(config: Config) -> DINO:
    """Reads DINO from the file `discriminator.pretrained`; raises as `read_dino`."""
    return read_dino(config.discriminator.pretrained, models.abstract(make_dino, config))
