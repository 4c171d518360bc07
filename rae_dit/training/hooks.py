"""Hooks of the training loop: telemetry and validation; a task adds its own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from rae_dit.data.pipeline import ordered_batches
from rae_dit.data.sources import Source
from rae_dit.objectives.base import Objective, Tree
from rae_dit.training.sharding import shard_batch
from rae_dit.training.state import TrainState

if TYPE_CHECKING:
    from rae_dit.training.run import Run

Values = Mapping[str, float | Path]
"""Metrics by name; a Path is that of a PNG to show beside them."""


class Hook(NamedTuple):
    """A function that the loop calls every so often, and after the last step.

    Attributes:
        every: steps between calls; None for never.
        call: (step, state, batch) -> metrics and pictures. All processes call it. The state's
            arrays are gone after the next step.
    """

    every: int | None
    call: Callable[[int, TrainState, Tree], Values]

    def is_due(self, step: int, last: int) -> bool:
        """Tells whether to call it after `step` of a run of `last` steps."""
        return is_due(step, self.every, last)


def is_due(step: int, every: int | None, last: int) -> bool:
    """Tells whether what happens every so many steps, and after the last one, happens now."""
    return every is not None and (step % every == 0 or step == last)


def telemetry_hook(run: "Run") -> Hook:
    """Measures activations whenever a step is logged, if the task has telemetry."""
    telemetry = run.program.telemetry
    if telemetry is None:
        return Hook(None, lambda step, state, batch: {})

    def measure(step: int, state: TrainState, batch: Tree) -> Values:
        values = telemetry(state.params, run.frozen, batch, state.key)
        return {name: float(value) for name, value in values.items()}

    return Hook(run.config.metrics.log_every, measure)


def validation_hook(run: "Run") -> Hook:
    """Measures held-out losses: "val/..." of the parameters, "val_ema/..." of their EMA.

    The same images, times and noise are used at every call, so that curves are comparable. Without
    held-out images there is nothing to measure.
    """
    config, source = run.config, run.validation
    if source is None:
        return Hook(None, lambda step, state, batch: {})

    def validate(step: int, state: TrainState, batch: Tree) -> Values:
        values: dict[str, float | Path] = {}
        for prefix, params in (("val", state.params), ("val_ema", state.ema)):
            means, _ = held_out_means(
                run.program.validate,
                params,
                run.frozen,
                source,
                run.mesh,
                batch_size=config.data.batch_size,
                seed=config.seed,
                limit=config.metrics.validate_batches * config.data.batch_size,
            )
            values |= {f"{prefix}/{name}": value for name, value in means.items()}
        return values

    return Hook(config.metrics.validate_every, validate)


def validation_sums(
    params: Tree, frozen: Tree, batch: Tree, key: Key[Array, ""], *, objective: Objective
) -> dict[str, Float[Array, ""]]:
    """Sums loss and metrics over a padded batch, with the "weight" to divide them by."""
    inputs = objective.sample_inputs(frozen, batch, key)
    loss, metrics = objective.loss(params, frozen, inputs)
    weight = batch["weight"]
    sums = {name: jnp.sum(value * weight) for name, value in (metrics | {"loss": loss}).items()}
    return sums | {"weight": jnp.sum(weight)}


def held_out_means(
    validate: Callable[..., Any],
    params: Tree,
    frozen: Tree,
    source: Source,
    mesh: Mesh,
    *,
    batch_size: int,
    seed: int,
    limit: int | None,
) -> tuple[dict[str, float], int]:
    """Averages loss and metrics over held-out images; the same call gives the same numbers.

    Args:
        validate: of a `Program`: (params, frozen, batch, key) -> sums, "weight" among them.
        params: parameters, or their EMA.
        frozen: networks that are used and not trained.
        source: the images.
        mesh: its devices share every batch.
        batch_size: images per batch over all processes.
        seed: of the random numbers of the objective's inputs.
        limit: images to use; None for all.

    Returns:
        {name: mean}, and the number of images; damaged ones do not count.
    """
    total: dict[str, float] = {}
    batches = ordered_batches(
        source,
        batch_size=batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        limit=limit,
    )
    with batches:
        for number, batch in enumerate(batches):
            key = jax.random.fold_in(jax.random.key(seed), number)
            sums = validate(params, frozen, shard_batch(batch, mesh), key)
            for name, value in sums.items():
                total[name] = total.get(name, 0.0) + float(value)
    weight = total.pop("weight")
    return {name: value / weight for name, value in total.items()}, round(weight)
