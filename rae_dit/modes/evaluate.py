"""--mode=evaluate: metrics of generated images, or of images in files."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from rae_dit.config import Config
from rae_dit.evaluation.figures import sample_grid
from rae_dit.evaluation.metric_state import MetricState
from rae_dit.evaluation.pipeline import (
    Batch,
    evaluate_batches,
    source_batches,
    stored_batches,
)
from rae_dit.evaluation.stored import StoredImages
from rae_dit.multihost import decide
from rae_dit.provenance import file_record, software
from rae_dit.sampling.generate import Generator, generate
from rae_dit.setup import data, models
from rae_dit.setup.evaluation import (
    check_evaluation,
    generated_batches,
    labels_of,
    make_feature_extractor,
    open_samples,
    with_batch_size,
)
from rae_dit.setup.references import make_reference
from rae_dit.setup.sampling import generation_settings, load_generator, network_settings
from rae_dit.storage.files import write_json
from rae_dit.weights.hub import pinned
from rae_dit.workdir import newest_step

log = logging.getLogger(__name__)

GRID_COLUMNS, GRID_ROWS = 10, 10


def evaluate(config: Config, workdir: Path) -> None:
    """Writes evaluation.json into the workdir, and grids of generated images.

    Raises:
        ConfigError: a file that the config names is missing or cannot be used.
        WeightsError: the Inception's weights are not the 2015 Inception's.
        CheckpointError: the workdir has no sound checkpoint.
    """
    stored = open_samples(config)
    config = with_batch_size(check_evaluation(config, stored))
    extractor = make_feature_extractor(config)
    # Once: training may save another one meanwhile.
    step = decide(lambda: newest_step(workdir))
    generator = load_generator(config, workdir, step) if stored is None else None
    reference = make_reference(config, workdir, extractor)

    def values_of(batches: Iterator[Batch]) -> dict[str, float]:
        return evaluate_batches(config.evaluate.metrics, extractor, reference, batches)

    report: dict[str, object] = {}
    if config.evaluate.judge == "digits":
        held_out = source_batches(
            data.held_out(config), config.evaluate.batch_size, num_workers=config.data.num_workers
        )
        report |= with_suffix("real", values_of(held_out))
    if stored is not None:
        size = config.evaluate.batch_size
        report |= values_of(stored_batches(stored, size, field="evaluate.samples"))
    elif generator is not None:
        with jax.default_matmul_precision(models.matmul_precision(config)):
            for suffix, guided in guidances(config).items():
                scale = guided.sample.cfg_scale
                values = values_of(generated_batches(generator, guided, scale))
                report |= with_suffix(suffix, values)
                write_grid(generator, guided, workdir / f"samples_{suffix}.png", scale)
    report |= provenance(config, workdir, step, reference, stored)
    if jax.process_index() == 0:
        write_json(workdir / "evaluation.json", report)
    log.info("evaluation: %s", report)


def write_grid(generator: Generator, config: Config, path: Path, cfg_scale: float) -> None:
    """Generates the first images of at most ten classes again and draws them."""
    classes = min(GRID_ROWS, config.data.num_classes)
    labels = labels_of(config, GRID_COLUMNS * classes)
    parts = list(generate(generator, generation_settings(config), labels, cfg_scale=cfg_scale))
    if jax.process_index() == 0:
        names = [str(label) for label in range(config.data.num_classes)]
        sample_grid(path, np.concatenate(parts), np.array(labels), names, columns=GRID_COLUMNS)


def guidances(config: Config) -> dict[str, Config]:
    """Returns suffix of metric names -> the config with its guidance, for each set of images."""
    unguided = dataclasses.replace(
        config.sample, cfg_scale=1.0, internal_scale=1.0, internal_null_scale=None
    )
    plain = dataclasses.replace(config, sample=unguided)
    if plain == config:
        return {"unguided": plain}
    return ({"unguided": plain} if config.evaluate.unguided else {}) | {"guided": config}


def with_suffix(suffix: str, values: dict[str, float]) -> dict[str, float]:
    """Appends a suffix to names: {"fid": 1.0} -> {"fid_guided": 1.0}."""
    return {f"{name}_{suffix}": value for name, value in values.items()}


def provenance(
    config: Config,
    workdir: Path,
    step: int | None,
    reference: MetricState | None,
    stored: StoredImages | None,
) -> dict[str, object]:
    """Returns all that the metrics depend on, for the report."""
    settings = config.evaluate
    found: dict[str, object] = {
        "judge": settings.judge,
        "inception": file_record(settings.inception),
        "reference": file_record(settings.reference) if settings.reference else config.data.source,
        "reference_images": None if reference is None else reference.num_images or None,
        **software(),
    }
    if stored is not None:
        return found | {"samples": file_record(settings.samples), "num_samples": len(stored)}
    sampler = dataclasses.asdict(config.sample)
    for unused in ("num_samples", "output_dir", "batch_size", "class_names"):
        del sampler[unused]
    sampler["cfg_scale_guided"] = sampler.pop("cfg_scale")
    return (
        {"num_samples": settings.num_samples}
        | sampler
        | {
            "checkpoint": str(workdir),
            "checkpoint_step": step,
            "pretrained": file_record(pinned(config.ddt.pretrained)),
            "precision": config.precision,
            **network_settings(config),
            "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        }
        | found
    )
