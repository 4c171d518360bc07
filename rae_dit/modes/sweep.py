"""--mode=sweep: metrics of every combination of guidance scale, steps and interval.

sweep.json grows cell by cell, so an interrupted sweep continues where it stopped.
"""

import dataclasses
import itertools
import json
import logging
import time
from pathlib import Path

import jax

from rae_dit.config import Config, ConfigError
from rae_dit.config.check import invalid_value
from rae_dit.evaluation.sweep_table import Cell, best, draw_sweep, markdown
from rae_dit.multihost import broadcast_set, decide, on_first_process
from rae_dit.provenance import Provenance
from rae_dit.setup import models
from rae_dit.setup.evaluation import (
    check_evaluation,
    make_feature_extractor,
    score,
    with_batch_size,
)
from rae_dit.setup.sampling import load_generator, sample_provenance, weights_provenance
from rae_dit.storage.files import write_json, write_text
from rae_dit.workdir import newest_step

log = logging.getLogger(__name__)

VARIED = ("cfg_scale", "num_steps", "cfg_interval")
FREE = (  # of evaluate
    *("num_samples", "batch_size", "sample_batch_size", "reference_cache", "unguided", "samples"),
)


def sweep(config: Config, workdir: Path) -> None:
    """Writes sweep.json, sweep.md and sweep.png into the workdir.

    Raises:
        ConfigError: a combination that cannot be sampled, a metric that is not computed, or a
            sweep.json of another model or other settings.
    """
    config = with_batch_size(config)
    planned, metric = plan(config), metric_of(config)
    check_evaluation(config)
    # Once: training may save another one meanwhile.
    step = decide(lambda: newest_step(workdir))
    path, settings = workdir / "sweep.json", sweep_settings(config, step)
    on_first_process(lambda: check(path, settings))
    with jax.default_matmul_precision(models.matmul_precision(config)):
        generator = load_generator(config, workdir, step)
        extractor = make_feature_extractor(config)
        settings |= weights_provenance(generator)
        on_first_process(lambda: check(path, settings))
        found = read_cells(path)
        known = broadcast_set(
            lambda: {i for i, cell in enumerate(planned) if key_of(cell) in found}, len(planned)
        )
        left = [cell for i, cell in enumerate(planned) if i not in known]
        started = time.monotonic()
        for done, cell in enumerate(left, start=1):
            found[key_of(cell)] = metrics = score(generator, extractor, cell, workdir)
            if jax.process_index() == 0:
                write_json(path, {"settings": settings.values, "cells": found})
            eta = (time.monotonic() - started) / done * (len(left) - done)
            log.info(
                *("%d of %d: %s: %s %.4g · ETA %.0f min", done, len(left), key_of(cell)),
                *(metric, metrics[metric], eta / 60),
            )
    if jax.process_index() == 0:
        write_summary(path, [cell_of(cell, found) for cell in planned], metric)


def plan(config: Config) -> list[Config]:
    """Returns the config of each cell; unguided cells for one interval only.

    Raises:
        ConfigError: a combination that cannot be sampled.
    """
    scales = config.sweep.cfg_scales or (config.sample.cfg_scale,)
    steps = config.sweep.num_steps or (config.sample.num_steps,)
    intervals = config.sweep.cfg_intervals or (config.sample.cfg_interval,)
    if config.evaluate.samples:
        expected = "'' because --mode=sweep evaluates images that it generates"
        raise invalid_value("evaluate.samples", config.evaluate.samples, expected)
    cells = []
    for scale, count, interval in itertools.product(scales, steps, intervals):
        if scale == 1.0 and interval != intervals[0]:
            continue
        sample = dataclasses.replace(
            config.sample, cfg_scale=scale, num_steps=count, cfg_interval=interval
        )
        cells.append(dataclasses.replace(config, sample=sample))
    return cells


def metric_of(config: Config) -> str:
    """Returns the metric that is drawn.

    Raises:
        ConfigError: it is not computed.
    """
    metric = config.sweep.metric or config.evaluate.metrics[0]
    if metric not in config.evaluate.metrics:
        expected = f"'' or one of evaluate.metrics: {', '.join(config.evaluate.metrics)}"
        raise invalid_value("sweep.metric", metric, expected)
    return metric


def sweep_settings(config: Config, step: int | None) -> Provenance:
    """Returns what the metrics of all cells depend on besides the weights."""
    sampler = sample_provenance(config, step)
    evaluation = dataclasses.asdict(config.evaluate)
    shared = {name: value for name, value in sampler.values.items() if name not in VARIED}
    shared |= {f"evaluate.{name}": value for name, value in evaluation.items() if name not in FREE}
    return Provenance.of(shared | {"num_samples": config.evaluate.num_samples})


def check(path: Path, settings: Provenance) -> None:
    """Raises ConfigError if there is a sweep.json whose cells are of other settings."""
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text())["settings"]
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"{path}: got other content; expected results of a sweep. Move it away"
        ) from error
    settings.require_same(before, str(path), "Move it away to start over", partly=True)


def read_cells(path: Path) -> dict[str, dict[str, float]]:
    """Reads name of a cell -> metrics, of the cells that are done."""
    if not path.exists():
        return {}
    cells: dict[str, dict[str, float]] = json.loads(path.read_text())["cells"]
    return cells


def write_summary(path: Path, cells: list[Cell], metric: str) -> None:
    """Writes the table and the picture beside sweep.json."""
    write_text(path.with_suffix(".md"), markdown(cells, metric))
    draw_sweep(path.with_suffix(".png"), cells, metric)
    winner = best(cells, metric)
    log.info(
        *("best %s: %.4g with cfg_scale %g, %d steps, interval [%g, %g]", metric),
        *(winner.metrics[metric], winner.cfg_scale, winner.num_steps, *winner.cfg_interval),
    )


def key_of(config: Config) -> str:
    """Names a cell in sweep.json."""
    sample = config.sample
    low, high = sample.cfg_interval
    return f"cfg_scale {sample.cfg_scale:g}, {sample.num_steps} steps, interval [{low:g}, {high:g}]"


def cell_of(config: Config, found: dict[str, dict[str, float]]) -> Cell:
    """Returns a cell with its metrics."""
    sample = config.sample
    metrics = found[key_of(config)]
    return Cell(sample.cfg_scale, sample.num_steps, sample.cfg_interval, metrics)
