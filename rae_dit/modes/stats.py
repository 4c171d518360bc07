"""--mode=stats: mean and variance of the encoder's tokens over the training images.

The images are gone through once, in order, cropped at the center and not mirrored. Every device of
every process adds up its share of a batch; the sums are of whole numbers
(evaluation/latent_statistics), so how the work was shared leaves no trace in the result. Sums on
disk let a job that was killed go on. A damaged image is left out, not replaced: its substitute has
a row of its own.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from rae_dit.checkpoint.integrity import checksums, json_checksum, named_leaves
from rae_dit.config import Config, ConfigError
from rae_dit.config.check import invalid_value
from rae_dit.data.pipeline import ordered_batches
from rae_dit.data.sources import Source
from rae_dit.evaluation.latent_statistics import (
    LIMIT,
    MAX_IMAGES,
    Totals,
    mean_and_variance,
    merge,
    nothing,
    totals_of,
)
from rae_dit.evaluation.partial_statistics import read_partial, write_partial
from rae_dit.multihost import on_first_process
from rae_dit.sampling import codec
from rae_dit.setup import data, models, weights
from rae_dit.setup.weights import Model
from rae_dit.storage.files import first_unwritable
from rae_dit.training.sharding import make_mesh, replicated, shard_batch
from rae_dit.weights.statistics import write_statistics

log = logging.getLogger(__name__)


def stats(config: Config, workdir: Path) -> None:
    """Writes `stats.output`, or statistics.npz into the workdir; `encoder.statistics` takes it.

    On the way statistics.partial.npz stands in the workdir; the same command continues from it,
    with other batches and devices if need be.

    Raises:
        ConfigError: no or too many images, latents that no normalised token can have, or a partial
            file that is damaged or of other settings.
    """
    bare = dataclasses.replace(config.encoder, statistics="")
    config = dataclasses.replace(config, encoder=bare)
    mesh = make_mesh(config.sharding.fsdp)
    source = data.open_source(config, "train")
    if len(source) > MAX_IMAGES:
        raise ConfigError(
            f"data.path: got {len(source)} images, expected at most {MAX_IMAGES} for --mode=stats"
        )
    partial = workdir / "statistics.partial.npz"
    output = Path(config.stats.output) if config.stats.output else workdir / "statistics.npz"
    if (place := first_unwritable(output.parent)) is not None:
        expected = f"a file in a directory; {place} is none that can be written"
        raise invalid_value("stats.output", config.stats.output, expected)
    with jax.default_matmul_precision(models.matmul_precision(config)):
        encoder = weights.place_rae(config, mesh, decoder=False)
        provenance = describe(config, source, encoder)
        found = resume(partial, provenance, latent_shape(config))
        totals, _ = found
        steps = accumulate(config, source, encoder, mesh, *found)
        for number, (totals, done) in enumerate(steps, 1):
            if number % config.stats.save_every == 0 or done == len(source):
                check(totals, done)
                if jax.process_index() == 0 and done < len(source):
                    write_partial(partial, totals, done=done, provenance=provenance)
    mean, variance = mean_and_variance(totals)
    count = int(totals.images)
    if jax.process_index() == 0:
        provenance |= {"images": count, "damaged": len(source) - count}
        text = json.dumps(provenance)
        write_statistics(output, mean=mean, variance=variance, count=count, provenance=text)
        partial.unlink(missing_ok=True)
    log.info("statistics of %d latents in %s", count, output)


def accumulate(
    config: Config, source: Source, encoder: Model, mesh: Mesh, totals: Totals, done: int
) -> Iterator[tuple[Totals, int]]:
    """Goes on with record `done`; yields totals and records done after every batch."""
    add = jax.jit(add_batch, out_shardings=replicated(mesh))
    size = config.data.batch_size
    starts = range(done, len(source), size)
    if not starts:
        return
    with (
        ordered_batches(
            source,
            batch_size=size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            limit=None,
            start=done,
            num_workers=config.data.num_workers,
        ) as batches,
        tqdm(
            desc="latent statistics",
            unit="image",
            total=len(source),
            initial=done,
            disable=jax.process_index() != 0,
        ) as progress,
    ):
        with jax.enable_x64(True):
            totals = jax.device_put(totals, replicated(mesh))
        for first, batch in zip(starts, batches, strict=True):
            placed = shard_batch(batch, mesh)
            latents = codec.encode(*encoder, placed["image"])
            before = totals
            with jax.enable_x64(True):
                totals = add(totals, latents, placed["weight"])
            jax.block_until_ready(before)  # one batch ahead and no more: latents are large
            done = min(first + size, len(source))
            progress.update(done - first)
            yield totals, done


def add_batch(totals: Totals, latents: jax.Array, weight: jax.Array) -> Totals:
    """The totals with those of one more batch."""
    return merge(totals, totals_of(latents, weight))


def check(totals: Totals, done: int) -> None:
    """Refuses totals that are not those of layer-normalised tokens, as soon as they are saved."""
    if int(totals.strange):
        raise ConfigError(
            f"encoder: got {int(totals.strange)} latent elements not in (-{LIMIT:g}, {LIMIT:g}) or "
            f"not finite in the first {done} images, expected normalised tokens; look at the "
            "encoder's weights, or compute with precision='fp32'"
        )


def latent_shape(config: Config) -> tuple[int, int, int]:
    """(h, w, D) of the encoder's latents."""
    grid = models.latent_grid(config)
    return grid, grid, config.encoder.hidden_size


def describe(config: Config, source: Source, encoder: Model) -> dict[str, Any]:
    """Everything that the statistics depend on, the encoder's very numbers included."""
    fields = dataclasses.asdict(config.encoder)
    del fields["statistics"]
    sums = checksums(named_leaves(encoder.parameters))
    return {
        "source": config.data.source,
        "fingerprint": source.fingerprint,
        "image_size": config.data.image_size,
        "precision": config.precision,
        "encoder": fields,
        "encoder_checksum": json_checksum(sums),
    }


def resume(
    partial: Path, provenance: dict[str, Any], shape: tuple[int, int, int]
) -> tuple[Totals, int]:
    """The totals to go on with and the records they are of; the first process reads for all.

    Raises:
        ConfigError: on every process, if the file is damaged or of other settings.
    """
    totals, done = nothing(shape), 0

    def read() -> None:
        nonlocal totals, done
        if partial.exists():
            totals, done = read_partial(partial, provenance)
            log.info("continuing after %d images, from %s", done, partial)

    on_first_process(read)
    if jax.process_count() > 1:
        # As 32-bit halves: outside of `enable_x64` 64 bits would be cut without a word.
        halves = jax.tree.map(lambda leaf: np.atleast_1d(leaf).view(np.int32), (totals, done))
        told = multihost_utils.broadcast_one_to_all(halves)
        totals, done = jax.tree.map(
            lambda leaf, like: np.asarray(leaf).view(np.int64).reshape(np.shape(like)),
            told,
            (totals, np.int64(done)),
        )
    return totals, int(done)
