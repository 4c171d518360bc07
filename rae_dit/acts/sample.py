"""--mode=sample: images of chosen classes as PNG files, and one labelled grid."""

import logging
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from rae_dit import build
from rae_dit.acts.generate import cycle, generate, load_generator, to_uint8
from rae_dit.config import Config, parse_labels
from rae_dit.evaluation.pictures import sample_grid

log = logging.getLogger(__name__)

GRID_COLUMNS = 10


def sample(config: Config, workdir: Path) -> None:
    """Writes OUTPUT_DIR/NUMBER_LABEL.png for `sample.num_samples` images, and grid.png."""
    output = Path(config.sample.output_dir) if config.sample.output_dir else workdir / "samples"
    output.mkdir(parents=True, exist_ok=True)
    classes = parse_labels(config.sample.labels, config.data.num_classes)
    labels = cycle(classes, config.sample.num_samples)
    with jax.default_matmul_precision(build.matmul_precision(config)):
        generator = load_generator(config, workdir)
        written: list[np.ndarray] = []
        for images in generate(generator, config, labels, cfg_scale=config.sample.cfg_scale):
            for image in to_uint8(images):
                number = len(written)
                name = f"{number:06d}_{labels[number]}.png"
                Image.fromarray(image).save(output / name)
                written.append(image)
    shown = written[: GRID_COLUMNS * len(classes)]
    sample_grid(
        output / "grid.png",
        np.asarray(shown, np.float32) / 255,
        np.asarray(labels[: len(shown)]),
        [str(name) for name in range(config.data.num_classes)],
        columns=GRID_COLUMNS,
    )
    log.info("%d images and grid.png in %s", len(written), output)
