"""--mode=evaluate: how good generated images are, judged by something that is not our model.

For digits the judge is a classifier fitted on real training images, and the Fréchet distance is
taken between pixels; the distance between two halves of the real images stands beside it.
"""

import logging
from pathlib import Path

import jax
import numpy as np

from rae_dit import build, records
from rae_dit.acts.generate import cycle, generate, load_generator
from rae_dit.config import Config, ConfigError
from rae_dit.data.sources import Source
from rae_dit.data.transforms import to_float
from rae_dit.evaluation.digits import DigitJudge, pixel_features
from rae_dit.evaluation.frechet import Moments, frechet_distance
from rae_dit.evaluation.pictures import sample_grid
from rae_dit.files import write_json

log = logging.getLogger(__name__)

GRID_COLUMNS = 10


def evaluate(config: Config, workdir: Path) -> None:
    """Writes evaluation.json and samples.png into the workdir."""
    if config.data.source != "digits":
        raise ConfigError(
            f"data.source: got {config.data.source!r}, expected 'digits' for --mode=evaluate"
        )
    train_images, train_labels = read_all(records.open_source(config, "train"))
    held_images, held_labels = read_all(records.held_out(config))
    judge = DigitJudge.fit(train_images, train_labels)
    real = Moments.of(pixel_features(train_images))
    report: dict[str, object] = {
        "num_samples": config.evaluate.num_samples,
        "num_steps": config.sample.num_steps,
        "method": config.sample.method,
        "grid": config.sample.grid,
        "cfg_scale_guided": config.sample.cfg_scale,
        "cfg_interval": list(config.sample.cfg_interval),
        "class_accuracy_real": judge.accuracy(held_images, held_labels),
        "frechet_real": frechet_distance(real, Moments.of(pixel_features(held_images))),
    }
    labels = cycle(range(config.data.num_classes), config.evaluate.num_samples)
    with jax.default_matmul_precision(build.matmul_precision(config)):
        generator = load_generator(config, workdir)
        for suffix, scale in guidance_scales(config).items():
            images = np.concatenate(list(generate(generator, config, labels, cfg_scale=scale)))
            fake = Moments.of(pixel_features(images))
            report[f"class_accuracy_{suffix}"] = judge.accuracy(images, np.asarray(labels))
            report[f"frechet_{suffix}"] = frechet_distance(real, fake)
            shown = GRID_COLUMNS * config.data.num_classes
            sample_grid(
                workdir / f"samples_{suffix}.png",
                images[:shown],
                np.asarray(labels[:shown]),
                [str(name) for name in range(config.data.num_classes)],
                columns=GRID_COLUMNS,
            )
    write_json(workdir / "evaluation.json", report)
    log.info("evaluation: %s", report)


def guidance_scales(config: Config) -> dict[str, float]:
    """Names and scales of what is generated: without guidance, and with it if there is any."""
    guided = {} if config.sample.cfg_scale == 1.0 else {"guided": config.sample.cfg_scale}
    return {"unguided": 1.0} | guided


def read_all(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """All images, float32 in [0, 1], and labels of a small source."""
    records = [source[i] for i in range(len(source))]
    images = np.stack([to_float(record["image"]) for record in records])
    return images, np.asarray([record["label"] for record in records])
