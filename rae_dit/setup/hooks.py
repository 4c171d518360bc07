"""Hooks that make images with the EMA during training: pictures, and their evaluation."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from rae_dit.config import Config
from rae_dit.data.sources import Source
from rae_dit.data.transforms import to_float
from rae_dit.evaluation.figures import reconstruction_grid, sample_grid
from rae_dit.multihost import place
from rae_dit.objectives.base import Tree
from rae_dit.sampling import codec
from rae_dit.sampling.generate import Generator, NotFiniteError, generate
from rae_dit.sampling.labels import display_names, image_labels
from rae_dit.setup import models, weights
from rae_dit.setup.evaluation import during_training, make_feature_extractor, score
from rae_dit.setup.networks import place_guide
from rae_dit.setup.sampling import generation_settings
from rae_dit.training.hook import Hook, Values
from rae_dit.training.sharding import replicated
from rae_dit.training.state import TrainState

log = logging.getLogger(__name__)

COLUMNS = 10


def sample_hooks(
    config: Config,
    mesh: Mesh,
    frozen: Tree,
    validation: Source | None,
    workdir: Path,
    after_batch: Callable[[], None],
) -> Sequence[Hook]:
    """Makes the hooks of a stage-2 run: evaluation and pictures of the EMA's samples.

    The decoder, the guide and the feature extractor are loaded now, if they are needed.

    Args:
        config: of the run.
        mesh: all of its devices.
        frozen: parameters of its RAE without decoder; {} on cached latents.
        validation: not used.
        workdir: of the run.
        after_batch: called after each batch of an evaluation.

    Raises:
        ConfigError: a file that the config names is missing or cannot be used.
    """
    evaluate_every, sample_every = config.metrics.evaluate_every, config.metrics.sample_every
    if evaluate_every is None and sample_every is None:
        return ()
    hooks = []
    generator_of = ema_generator(config, mesh, frozen)
    if evaluate_every is not None:
        settings = during_training(config)
        extractor = make_feature_extractor(settings)

        def evaluate(step: int, state: TrainState, batch: Tree) -> Values:
            generator = generator_of(state.ema)
            values = score(generator, extractor, settings, workdir, after_batch=after_batch)
            return {f"eval/{name}": value for name, value in values.items()}

        hooks.append(Hook(evaluate_every, warns_if_not_finite(evaluate), "evaluation"))

    def draw(step: int, state: TrainState, batch: Tree) -> Values:
        """Draws the first `sample.batch_size` images of --mode=sample, a row for each class."""
        labels = image_labels(config)[: config.sample.batch_size]
        generator = generator_of(state.ema)
        scale = config.sample.cfg_scale
        parts = generate(generator, generation_settings(config), labels, cfg_scale=scale)
        images = list(parts)
        path = picture_path(workdir, step)
        if jax.process_index() == 0:
            sample_grid(
                path,
                np.concatenate(images),
                np.asarray(labels),
                display_names(config),
                columns=COLUMNS,
            )
        return {"samples": path}

    return [*hooks, Hook(sample_every, warns_if_not_finite(draw), "pictures")]


def reconstruction_hooks(
    config: Config,
    mesh: Mesh,
    frozen: Tree,
    validation: Source | None,
    workdir: Path,
    after_batch: Callable[[], None],
) -> Sequence[Hook]:
    """Makes the hook of a stage-1 run: pictures of held-out images and their reconstructions.

    Args:
        config: of the run.
        mesh: all of its devices.
        frozen: parameters of its frozen networks, the RAE without decoder among them.
        validation: held-out records; None for no pictures.
        workdir: of the run.
        after_batch: not used.
    """
    if validation is None:
        return ()
    count = min(COLUMNS, len(validation))
    everywhere = replicated(mesh)  # a few images: every device makes them all
    graph = models.rae_graph(config, decoder=True)

    def draw(step: int, state: TrainState, batch: Tree) -> Values:
        images = to_float(np.stack([validation[i]["image"] for i in range(count)]))
        made = codec.reconstruct(
            graph,
            frozen["rae"] | {"decoder": state.ema},
            place(images, everywhere),
        )
        made = jax.device_put(made, everywhere)
        path = picture_path(workdir, step)
        if jax.process_index() == 0:
            shown = np.asarray(made.addressable_data(0))
            reconstruction_grid(path, images, shown, columns=COLUMNS)
        return {"samples": path}

    return [Hook(config.metrics.sample_every, draw, "pictures")]


def ema_generator(config: Config, mesh: Mesh, frozen: Tree) -> Callable[[Tree], Generator]:
    """Loads decoder and guide; returns a function that makes a generator of a stage-2 run's EMA."""
    decoder = place(weights.place_decoder(config, mesh), replicated(mesh))
    if not frozen:  # trained on cached latents
        frozen = weights.place_rae(config, mesh, decoder=False).parameters
    guide = place_guide(config, mesh) if config.sample.guide_checkpoint else None
    ddt = nnx.graphdef(models.abstract(models.make_ddt, config))
    rae = models.rae_graph(config, decoder=True)

    def generator(ema: Tree) -> Generator:
        return Generator(
            nnx.merge(ddt, ema),
            nnx.merge(rae, frozen | {"decoder": decoder}),
            mesh,
            None if guide is None else nnx.merge(*guide),
        )

    return generator


def warns_if_not_finite(
    call: Callable[[int, TrainState, Tree], Values],
) -> Callable[[int, TrainState, Tree], Values]:
    """Turns samples that are not finite into a warning: they do not stop training."""

    def careful(step: int, state: TrainState, batch: Tree) -> Values:
        try:
            return call(step, state, batch)
        except NotFiniteError as error:
            log.warning("step %d, samples of the EMA: %s", step, error)
            return {}

    return careful


def picture_path(workdir: Path, step: int) -> Path:
    """Names the picture of a step."""
    return workdir / "pictures" / f"step_{step}.png"
