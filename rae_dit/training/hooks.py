"""Hooks of the training loop: telemetry and validation; a task adds its own."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from rae_dit.data.pipeline import ordered_batches
from rae_dit.data.sources import Source
from rae_dit.objectives.base import Tree
from rae_dit.training.hook import Hook, Values
from rae_dit.training.keys import run_keys
from rae_dit.training.run import Run
from rae_dit.training.sharding import local_rows, shard_batch
from rae_dit.training.state import TrainState


def telemetry_hook(run: Run) -> Hook:
    """Measures activations whenever a step is logged, if the task has telemetry."""
    telemetry = run.program.telemetry
    if telemetry is None:
        return Hook(None, lambda step, state, batch: {})

    def measure(step: int, state: TrainState, batch: Tree) -> Values:
        values = telemetry(state.params, run.frozen, batch, state.key)
        return {name: float(value) for name, value in values.items()}

    return Hook(run.config.metrics.log_every, measure, "telemetry")


def validation_hook(run: Run, after_batch: Callable[[], None]) -> Hook:
    """Measures held-out losses: "val/..." of the parameters, "val_ema/..." of their EMA.

    The same images, times and noise are used at every call, so that curves are comparable. Without
    held-out images there is nothing to measure. `after_batch` is called after each batch.
    """
    config, source = run.config, run.validation
    if source is None:
        return Hook(None, lambda step, state, batch: {})

    def validate(step: int, state: TrainState, batch: Tree) -> Values:
        means, _ = held_out_means(
            run.program.validate,
            {"val": state.params, "val_ema": state.ema},
            run.frozen,
            source,
            run.mesh,
            batch_size=config.data.batch_size,
            seed=config.seed,
            limit=config.metrics.validate_batches * config.data.batch_size,
            num_workers=config.data.num_workers,
            after_batch=after_batch,
        )
        return {
            f"{prefix}/{name}": value
            for prefix, found in means.items()
            for name, value in found.items()
        }

    return Hook(config.metrics.validate_every, validate, "validation")


def held_out_means(
    validate: Callable[..., Any],
    trees: Mapping[str, Tree],
    frozen: Tree,
    source: Source,
    mesh: Mesh,
    *,
    batch_size: int,
    seed: int,
    limit: int | None,
    num_workers: int,
    after_batch: Callable[[], None] = lambda: None,
) -> tuple[dict[str, dict[str, float]], int]:
    """Averages loss and metrics over held-out images; the same call gives the same numbers.

    Every batch is read once and looked at by all trees, with the same random numbers.

    Args:
        validate: of a `Program`: (params, frozen, batch, key) -> sums, "weight" among them.
        trees: parameters, their EMA, by name.
        frozen: networks that are used and not trained.
        source: the images.
        mesh: its devices share every batch.
        batch_size: images per batch over all processes.
        seed: of the run, for the random numbers of the objective's inputs.
        limit: images to use; None for all.
        num_workers: processes that read the images, see `ordered_batches`.
        after_batch: called after each batch.

    Returns:
        For each tree {name: mean}, and the number of images; damaged ones do not count.
    """
    totals: dict[str, dict[str, float]] = {name: {} for name in trees}
    batches = ordered_batches(
        source,
        batch_size=batch_size,
        limit=limit,
        num_workers=num_workers,
        rows=local_rows(mesh, batch_size),
    )
    with batches:
        for number, batch in enumerate(batches):
            key = jax.random.fold_in(run_keys(seed).validation, number)
            placed = shard_batch(batch, mesh)
            found = {name: validate(tree, frozen, placed, key) for name, tree in trees.items()}
            for name, sums in found.items():
                for metric, value in sums.items():
                    totals[name][metric] = totals[name].get(metric, 0.0) + float(value)
            after_batch()
    weights = [total.pop("weight") for total in totals.values()]
    means = {
        name: {metric: value / weights[0] for metric, value in total.items()}
        for name, total in totals.items()
    }
    return means, round(weights[0])
