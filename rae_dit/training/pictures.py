"""Pictures of what the EMA of a run can do by now, always of the same noise or the same images."""

from pathlib import Path

import jax
import numpy as np

from rae_dit.data.sources import Source
from rae_dit.data.transforms import to_float
from rae_dit.evaluation.figures import reconstruction_grid, sample_grid
from rae_dit.sampling import codec
from rae_dit.sampling.generate import generate
from rae_dit.sampling.labels import display_names, image_labels
from rae_dit.setup import models
from rae_dit.training.run import Run, ema_generator
from rae_dit.training.sharding import replicated
from rae_dit.training.state import TrainState

COLUMNS = 10


def draw(run: Run, state: TrainState, path: Path) -> None:
    """Writes a PNG on process 0; to be called by all processes.

    Stage 2: the first `sample.batch_size` images of --mode=sample, from its noise, with its labels
    and guidance. Stage 1: reconstructions of the first held-out images.

    Args:
        run: its objective is not "classification".
        state: its EMA is used.
        path: of the picture.
    """
    match run.config.objective:
        case "flow_matching":
            draw_samples(run, state, path)
        case "reconstruction":
            assert run.validation is not None  # `open_run` has seen to it
            draw_reconstructions(run, run.validation, state, path)


def draw_samples(run: Run, state: TrainState, path: Path) -> None:
    """Writes a grid of samples, a row for each class."""
    config = run.config
    labels = image_labels(config)[: config.sample.batch_size]
    generator = ema_generator(run, state)
    images = list(generate(generator, config, labels, cfg_scale=config.sample.cfg_scale))
    if jax.process_index() == 0:
        sample_grid(
            path,
            np.concatenate(images),
            np.asarray(labels),
            display_names(config),
            columns=COLUMNS,
        )


def draw_reconstructions(run: Run, validation: Source, state: TrainState, path: Path) -> None:
    """Writes held-out images, their reconstructions and the differences."""
    count = min(COLUMNS, len(validation))
    images = to_float(np.stack([validation[i]["image"] for i in range(count)]))
    everywhere = replicated(run.mesh)  # a few images: every device makes them all
    made = codec.reconstruct(
        models.rae_graph(run.config, decoder=True),
        run.frozen["rae"] | {"decoder": state.ema},
        jax.device_put(images, everywhere),
    )
    made = jax.device_put(made, everywhere)
    if jax.process_index() == 0:
        shown = np.asarray(made.addressable_data(0))
        reconstruction_grid(path, images, shown, columns=COLUMNS)
