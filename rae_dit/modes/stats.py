"""--mode=stats: mean and variance of the encoder's tokens over the training images.

One pass over the images in order, cropped at the center and not mirrored. Every device of every
process sums its share of a batch; the sums are integers (evaluation/latent_statistics), so the
result does not depend on how the work is shared. Sums on disk let a killed job continue. A damaged
image is left out, not replaced: its substitute has a row of its own.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from rae_dit.checkpoint.integrity import tree_checksum
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
    totals_of,
    zeros,
)
from rae_dit.evaluation.partial_statistics import read_partial, write_partial
from rae_dit.multihost import on_first_process, place
from rae_dit.provenance import Provenance
from rae_dit.sampling import codec
from rae_dit.setup import data, models, weights
from rae_dit.setup.weights import Model
from rae_dit.storage.files import first_unwritable
from rae_dit.storage.places import place as storage_place
from rae_dit.training.sharding import local_rows, make_mesh, replicated, shard_batch
from rae_dit.weights.statistics import write_statistics

log = logging.getLogger(__name__)


def stats(config: Config, workdir: Path) -> None:
    """Writes `stats.output`, or statistics.npz into the workdir, for `encoder.statistics`.

    Until it is done, statistics.partial.npz in the workdir holds the sums so far; the same command
    continues from it, with other batch sizes and devices if need be.

    Raises:
        ConfigError: no or too many images, latents that no normalized token can have, or a partial
            file that is damaged or of other settings.
    """
    bare = dataclasses.replace(config.encoder, statistics="")
    config = dataclasses.replace(config, encoder=bare)
    mesh = make_mesh(config.sharding.fsdp)
    source = data.open_source(config, "train")
    if len(source) > MAX_IMAGES:
        raise ConfigError(
            f"data.path: got {len(source)} images; expected at most {MAX_IMAGES} for --mode=stats"
        )
    resume_file = workdir / "statistics.partial.npz"
    output = (
        storage_place(config.stats.output) if config.stats.output else workdir / "statistics.npz"
    )
    if (blocked := first_unwritable(output.parent)) is not None:
        expected = f"a file in a writable directory; {blocked} is not writable"
        raise invalid_value("stats.output", config.stats.output, expected)
    with jax.default_matmul_precision(models.matmul_precision(config)):
        encoder = weights.place_rae(config, mesh, decoder=False)
        provenance = describe(config, source, encoder)
        found = resume(resume_file, provenance, models.latent_shape(config))
        totals, _ = found
        steps = accumulate(config, source, encoder, mesh, *found)
        for number, (totals, done) in enumerate(steps, 1):
            if number % config.stats.save_every == 0 or done == len(source):
                check(totals, done)
                if jax.process_index() == 0 and done < len(source):
                    write_partial(resume_file, totals, done=done, provenance=provenance)
    mean, variance = mean_and_variance(totals)
    count = int(totals.images)
    if jax.process_index() == 0:
        provenance |= {"images": count, "damaged": len(source) - count}
        text = json.dumps(provenance.values)
        write_statistics(output, mean=mean, variance=variance, count=count, provenance=text)
        resume_file.unlink(missing_ok=True)
    log.info("statistics of %d latents in %s", count, output)


def accumulate(
    config: Config, source: Source, encoder: Model, mesh: Mesh, totals: Totals, done: int
) -> Iterator[tuple[Totals, int]]:
    """Continues with record `done`; yields totals and records done after every batch."""
    add = jax.jit(add_batch, out_shardings=replicated(mesh))
    size = config.data.batch_size
    starts = range(done, len(source), size)
    if not starts:
        return
    with (
        ordered_batches(
            source,
            batch_size=size,
            limit=None,
            start=done,
            num_workers=config.data.num_workers,
            rows=local_rows(mesh, size),
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
            totals = place(totals, replicated(mesh))
        for first, batch in zip(starts, batches, strict=True):
            placed = shard_batch(batch, mesh)
            latents = codec.encode(*encoder, placed["image"])
            before = totals
            with jax.enable_x64(True):
                totals = add(totals, latents, placed["weight"])
            jax.block_until_ready(before)  # at most one batch ahead: latents are large
            done = min(first + size, len(source))
            progress.update(done - first)
            yield totals, done


def add_batch(totals: Totals, latents: jax.Array, weight: jax.Array) -> Totals:
    """Returns the totals with one more batch."""
    return merge(totals, totals_of(latents, weight))


def check(totals: Totals, done: int) -> None:
    """Raises ConfigError for totals of latents that are not layer-normalized tokens."""
    if int(totals.num_invalid):
        raise ConfigError(
            f"encoder: got {int(totals.num_invalid)} latent elements not in "
            f"(-{LIMIT:g}, {LIMIT:g}) or not finite in the first {done} images; expected "
            "normalized tokens. Check the encoder's weights, or compute with precision='fp32'"
        )


def describe(config: Config, source: Source, encoder: Model) -> Provenance:
    """Returns everything that the statistics depend on, a checksum of the encoder included."""
    fields = dataclasses.asdict(config.encoder)
    del fields["statistics"]
    return Provenance.of(
        {
            "source": config.data.source,
            "fingerprint": source.fingerprint,
            "image_size": config.data.image_size,
            "precision": config.precision,
            "encoder": fields,
            "encoder_checksum": tree_checksum(encoder.parameters),
        }
    )


def resume(
    resume_file: Path, provenance: Provenance, shape: tuple[int, int, int]
) -> tuple[Totals, int]:
    """Reads the totals to continue from and the number of records in them, for all processes.

    Raises:
        ConfigError: the file is damaged or of other settings; on every process.
    """
    totals, done = zeros(shape), 0

    def read() -> None:
        nonlocal totals, done
        if resume_file.exists():
            totals, done = read_partial(resume_file, provenance)
            log.info("continuing after %d images, from %s", done, resume_file)

    on_first_process(read)
    if jax.process_count() > 1:
        # As 32-bit halves: outside of `enable_x64` JAX would truncate 64 bits silently.
        halves = jax.tree.map(lambda leaf: np.atleast_1d(leaf).view(np.int32), (totals, done))
        shared = multihost_utils.broadcast_one_to_all(halves)
        totals, done = jax.tree.map(
            lambda leaf, like: np.asarray(leaf).view(np.int64).reshape(np.shape(like)),
            shared,
            (totals, np.int64(done)),
        )
    return totals, int(done)
