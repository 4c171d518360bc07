"""Mean losses and metrics over held-out images."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from rae_dit.data.pipeline import ordered_batches
from rae_dit.data.sources import Source
from rae_dit.objectives.base import Tree
from rae_dit.training.sharding import place_batch


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
    """Goes through held-out images once; the same call gives the same numbers.

    Args:
        validate: of a `Program`: (params, frozen, batch, key) -> sums, "weight" among them.
        params: what is judged: parameters, or their EMA.
        frozen: what the objective uses and does not train.
        source: the images.
        mesh: its devices share every batch.
        batch_size: images per batch over all processes.
        seed: of the random numbers that the objective draws.
        limit: images to look at; None for all.

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
            sums = validate(params, frozen, place_batch(batch, mesh), key)
            for name, value in sums.items():
                total[name] = total.get(name, 0.0) + float(value)
    weight = total.pop("weight")
    return {name: value / weight for name, value in total.items()}, round(weight)
