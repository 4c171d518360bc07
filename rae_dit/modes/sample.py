"""--mode=sample: images of chosen classes as PNG files, as one .npz, and as a labeled grid."""

import logging
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from rae_dit.config import Config
from rae_dit.data.transforms import to_float, to_uint8
from rae_dit.evaluation.figures import sample_grid
from rae_dit.multihost import VISIBLE_SECONDS, broadcast_set, decide, on_first_process
from rae_dit.sampling.generate import generate_shares
from rae_dit.sampling.image_directory import GRID, NPZ, ImageDirectory, ImageWriter
from rae_dit.sampling.labels import display_names, image_labels
from rae_dit.sampling.npz import write_npz
from rae_dit.setup import models
from rae_dit.setup.sampling import (
    generation_settings,
    load_generator,
    sample_provenance,
    weights_provenance,
)
from rae_dit.storage.places import place
from rae_dit.workdir import check_shared, newest_step

log = logging.getLogger(__name__)

GRID_COLUMNS, GRID_ROWS = 10, 20


def sample(config: Config, workdir: Path) -> None:
    """Writes `sample.num_samples` images as NUMBER_LABEL.png, samples.npz and grid.png.

    Every process writes the images that its devices hold, so `sample.output_dir` must be on a
    file system that they share. Images of an earlier run with the same settings and weights are
    kept.

    Raises:
        ConfigError: the classes, the guide or the directory cannot be used.
        CheckpointError: there is no sound checkpoint, or it has no EMA.
        WeightsError: a third-party file cannot be used.
        NotFiniteError: an image is not finite.
    """
    labels, names = image_labels(config), display_names(config)
    output = place(config.sample.output_dir) if config.sample.output_dir else workdir / "samples"
    directory = ImageDirectory(output, labels)
    # Once: training may save another one meanwhile.
    step = decide(lambda: newest_step(workdir))
    settings = sample_provenance(config, step)
    on_first_process(lambda: directory.check(settings))
    with jax.default_matmul_precision(models.matmul_precision(config)):
        generator = load_generator(config, workdir, step)
        manifest = settings | weights_provenance(generator)
        on_first_process(lambda: directory.claim(manifest))
        check_shared(output)
        missing = broadcast_set(directory.missing, len(labels))
        with ImageWriter(directory) as writer:
            for share in generate_shares(
                generator,
                generation_settings(config),
                labels,
                cfg_scale=config.sample.cfg_scale,
                wanted=missing,
            ):
                writer.write(share.numbers, to_uint8(share.images))
    multihost_utils.sync_global_devices("all images are written")
    on_first_process(lambda: directory.wait_for(missing, VISIBLE_SECONDS))
    on_first_process(lambda: write_summary(directory, names))
    log.info("%d images, %d of them new, in %s", len(labels), len(missing), output)


def write_summary(directory: ImageDirectory, names: list[str]) -> None:
    """Writes samples.npz and grid.png from the images on disk, with a few of them in memory."""
    if not (directory.root / NPZ).exists():
        images = tqdm(directory.read_all(), desc=NPZ, unit="image", total=len(directory.labels))
        write_npz(directory.root / NPZ, images, np.asarray(directory.labels))
    shown: dict[int, list[int]] = {}
    for number, label in enumerate(directory.labels):
        if label in shown or len(shown) < GRID_ROWS:
            shown.setdefault(label, []).append(number)
    numbers = [number for row in shown.values() for number in row[:GRID_COLUMNS]]
    sample_grid(
        directory.root / GRID,
        to_float(np.stack([directory.read(number) for number in numbers])),
        np.asarray([directory.labels[number] for number in numbers]),
        names,
        columns=GRID_COLUMNS,
    )
