"""--mode=evaluate: how good generated images are, judged by something that is not our model.

`score` is the one way from a model to figures: this mode, the sweep and the evaluation during
training all call it. docs/evaluation.md says which figures these are.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from rae_dit import __version__
from rae_dit.config import Config
from rae_dit.evaluation import pipeline
from rae_dit.evaluation.feature_extractors import FeatureExtractor
from rae_dit.evaluation.figures import sample_grid
from rae_dit.evaluation.metric_state import Tally, metric_values
from rae_dit.evaluation.pipeline import Batch
from rae_dit.multihost import allgather_bytes
from rae_dit.sampling.generate import Generator, generate, generate_shares, load_generator
from rae_dit.sampling.labels import image_labels
from rae_dit.setup import data, models
from rae_dit.storage.files import write_json
from rae_dit.workdir import newest_step

log = logging.getLogger(__name__)

GRID_COLUMNS, GRID_ROWS = 10, 10


def evaluate(config: Config, workdir: Path) -> None:
    """Writes evaluation.json into the workdir, and a grid of the images that were generated.

    Raises:
        ConfigError: a file that the config names is missing or cannot be used.
        WeightsError: the Inception's weights are not the 2015 Inception's.
        CheckpointError: the workdir has no sound checkpoint.
    """
    pipeline.check(config)
    judge = pipeline.make_judge(config)
    generator = None if config.evaluate.samples else load_generator(config, workdir)
    reference = pipeline.make_reference(config, workdir, judge)
    report: dict[str, object] = {}
    if config.evaluate.judge == "digits":
        held_out = pipeline.source_batches(data.held_out(config), config.evaluate.batch_size)
        report |= with_suffix("real", judge_batches(config, judge, reference, held_out))
    if generator is None:
        stored = pipeline.stored_samples(config)
        batches = pipeline.stored_batches(
            stored, config.evaluate.batch_size, field="evaluate.samples"
        )
        report |= judge_batches(config, judge, reference, batches)
    else:
        with jax.default_matmul_precision(models.matmul_precision(config)):
            for suffix, scale in guidance_scales(config).items():
                batches = generated(generator, config, scale)
                report |= with_suffix(suffix, judge_batches(config, judge, reference, batches))
                write_grid(generator, config, workdir / f"samples_{suffix}.png", scale)
    report |= provenance(config, workdir, reference)
    if jax.process_index() == 0:
        write_json(workdir / "evaluation.json", report)
    log.info("evaluation: %s", report)


def score(
    generator: Generator, judge: FeatureExtractor, config: Config, workdir: Path
) -> dict[str, float]:
    """Metric -> value of `evaluate.num_samples` images with `sample.cfg_scale`, on every process.

    Args:
        generator: the models.
        judge: `pipeline.make_judge` of this config; loaded once for many scores.
        config: `evaluate.*` and `sample.*` say how.
        workdir: where computed references are kept, unless `evaluate.reference_cache` says.

    Raises:
        ConfigError: a file that the config names is missing or cannot be used.
    """
    pipeline.check(config)
    reference = pipeline.make_reference(config, workdir, judge)
    with jax.default_matmul_precision(models.matmul_precision(config)):
        batches = generated(generator, config, config.sample.cfg_scale)
        return judge_batches(config, judge, reference, batches)


def judge_batches(
    config: Config, judge: FeatureExtractor, reference: Tally | None, batches: Iterator[Batch]
) -> dict[str, float]:
    """The metrics of images; computed on process 0 and told to the others."""
    metrics = config.evaluate.metrics
    keep = 1 if {"precision", "recall"} & {*metrics} else 0
    tally = pipeline.tally_of(judge, batches, keep=keep)
    values = metric_values(metrics, tally, reference) if jax.process_index() == 0 else {}
    told: dict[str, float] = json.loads(allgather_bytes(json.dumps(values).encode())[0])
    return told


def generated(generator: Generator, config: Config, cfg_scale: float) -> Iterator[Batch]:
    """This process's share of the images, in batches of the judge's size."""
    labels = labels_of(config, config.evaluate.num_samples)
    shares = generate_shares(
        generator, config, labels, cfg_scale=cfg_scale, wanted=range(len(labels))
    )
    known = np.asarray(labels)
    for numbers, images in regrouped(shares, config.evaluate.batch_size):
        yield Batch(numbers, images, known[numbers])


def regrouped(
    shares: Iterator[tuple[np.ndarray, np.ndarray]], size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same images in groups of `size`, the last one smaller."""
    numbers, images = [], []
    for some_numbers, some_images in shares:
        numbers.append(some_numbers)
        images.append(some_images)
        while sum(map(len, numbers)) >= size:
            all_numbers, all_images = np.concatenate(numbers), np.concatenate(images)
            yield all_numbers[:size], all_images[:size]
            numbers, images = [all_numbers[size:]], [all_images[size:]]
    if sum(map(len, numbers)):
        yield np.concatenate(numbers), np.concatenate(images)


def write_grid(generator: Generator, config: Config, path: Path, cfg_scale: float) -> None:
    """Draws the first images once more, of at most ten classes."""
    classes = min(GRID_ROWS, config.data.num_classes)
    labels = labels_of(config, GRID_COLUMNS * classes)
    parts = list(generate(generator, config, labels, cfg_scale=cfg_scale))
    if jax.process_index() == 0:
        names = [str(label) for label in range(config.data.num_classes)]
        sample_grid(path, np.concatenate(parts), np.array(labels), names, columns=GRID_COLUMNS)


def labels_of(config: Config, limit: int) -> list[int]:
    """Labels of the images to generate, the first `limit` of them at most."""
    count = min(limit, config.evaluate.num_samples)
    counted = dataclasses.replace(config.sample, num_samples=count)
    return image_labels(dataclasses.replace(config, sample=counted))


def guidance_scales(config: Config) -> dict[str, float]:
    """Suffix of the metrics' names -> scale, for each time images are generated."""
    scale = config.sample.cfg_scale
    if scale == 1.0:
        return {"unguided": 1.0}
    return ({"unguided": 1.0} if config.evaluate.unguided else {}) | {"guided": scale}


def with_suffix(suffix: str, values: dict[str, float]) -> dict[str, float]:
    """{"fid": 1.0} -> {"fid_guided": 1.0}."""
    return {f"{name}_{suffix}": value for name, value in values.items()}


def provenance(config: Config, workdir: Path, reference: Tally | None) -> dict[str, object]:
    """All that the figures depend on, for the report."""
    settings = config.evaluate
    found: dict[str, object] = {
        "judge": settings.judge,
        "inception": pipeline.hashed(settings.inception),
        "reference": pipeline.hashed(settings.reference)
        if settings.reference
        else config.data.source,
        "reference_images": None if reference is None else reference.count or None,
        "version": __version__,
        "jax": jax.__version__,
    }
    if settings.samples:
        stored = pipeline.stored_samples(config)
        return found | {"samples": pipeline.hashed(settings.samples), "num_samples": len(stored)}
    sampler = dataclasses.asdict(config.sample)
    for unused in ("num_samples", "output_dir", "batch_size", "class_names"):
        del sampler[unused]
    sampler["cfg_scale_guided"] = sampler.pop("cfg_scale")
    return (
        {"num_samples": settings.num_samples}
        | sampler
        | {
            "checkpoint": str(workdir),
            "checkpoint_step": newest_step(workdir),
            "pretrained": pipeline.hashed(config.ddt.pretrained),
            "precision": config.precision,
            "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        }
        | found
    )
