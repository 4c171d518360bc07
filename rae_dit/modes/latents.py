"""--mode=latents: encodes all images once, for stage 2 to train on (`data.source="latents"`).

Training images are cropped at the center and, with `data.flip`, encoded twice: as they are and
mirrored. Each process encodes the shards of its own on its own devices, and each shard appears by
one rename: a killed job goes on with those that are missing, on as many processes as it then has.
"""

import contextlib
import dataclasses
import functools
import itertools
import logging
import math
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from rae_dit import compiler
from rae_dit.architecture import LatentStorage
from rae_dit.config import Config, ConfigError
from rae_dit.config.check import invalid_value
from rae_dit.data.files import SourceError
from rae_dit.data.latent_writer import to_record, write_shard
from rae_dit.data.latents import MANIFEST, Manifest
from rae_dit.data.pipeline import ordered_batches
from rae_dit.data.readers import class_names
from rae_dit.data.sources import Source
from rae_dit.models.latent_storage import pack
from rae_dit.models.pixels import to_unit
from rae_dit.multihost import decide, first_error, on_first_process, wait_until_visible
from rae_dit.objectives.base import Tree
from rae_dit.provenance import Provenance
from rae_dit.setup import data, models, weights
from rae_dit.setup.latents import describe
from rae_dit.setup.weights import Model
from rae_dit.storage.files import first_unwritable
from rae_dit.storage.places import is_url, place
from rae_dit.training.sharding import make_mesh, replicated, shard_batch

log = logging.getLogger(__name__)


def latents(config: Config, workdir: Path) -> None:
    """Writes train/ and, of held-out images, validation/ below `latents.output`.

    Raises:
        ConfigError: a random crop, images that are missing, a directory that cannot be written, is
            full or holds other latents, or latents that are not finite.
    """
    if config.data.crop != "adm_center":
        expected = "'adm_center': a random crop differs in every epoch and cannot be stored"
        raise invalid_value("data.crop", config.data.crop, expected)
    output = place(config.latents.output) if config.latents.output else workdir / "latents"
    if (blocked := first_unwritable(output)) is not None:
        expected = f"a writable directory; {blocked} is not writable"
        raise invalid_value("latents.output", config.latents.output, expected)
    train = data.open_source(config, "train")
    held_out = data.open_source(config, "validation")
    data.check_same_classes(config, train, held_out)
    with jax.default_matmul_precision(models.matmul_precision(config)):
        everywhere = make_mesh(config.sharding.fsdp)
        rae = weights.place_rae(config, everywhere, decoder=False)
        mesh = make_mesh(1, jax.local_devices())
        own = Model(rae.graph, on_own_devices(rae.parameters, mesh))
        for name, source in (("train", train), ("validation", held_out)):
            if source is not None:
                manifest = Manifest(
                    provenance=dict(describe(config, source, rae.parameters).values),
                    images=len(source),
                    shape=models.latent_shape(config),
                    storage=config.latents.storage,
                    mirrored=config.data.flip and name == "train",
                    images_per_shard=config.latents.images_per_shard,
                    num_classes=source.num_classes,
                    classes=class_names(source),
                )
                write_split(config, source, own, mesh, output / name, manifest)


def on_own_devices(parameters: Tree, mesh: Mesh) -> Tree:
    """Copies replicated parameters to the devices of this process alone."""
    return jax.tree.map(
        lambda leaf: jax.device_put(leaf.addressable_data(0), replicated(mesh)), parameters
    )


def write_split(
    config: Config, source: Source, rae: Model, mesh: Mesh, directory: Path, manifest: Manifest
) -> None:
    """Writes the missing shards of a split, and at last the manifest that says it is complete."""
    on_first_process(functools.partial(begin, directory, manifest))
    wait_until_visible(directory / MANIFEST)
    missing = decide(lambda: manifest.missing(directory))
    shares = np.array_split(missing, jax.process_count())
    shards = [int(shard) for shard in shares[jax.process_index()]]
    left = sum(len(manifest.images_of(shard)) for shard in shards)
    with tqdm(
        desc=f"{directory.name} latents",
        unit="image",
        total=left,
        disable=jax.process_index() != 0 or not left,
    ) as progress:
        for first, last in spans(shards):
            images = range(manifest.images_of(first).start, manifest.images_of(last).stop)
            records = encoded(config, source, rae, mesh, manifest, images)
            with contextlib.closing(records):
                for shard in range(first, last + 1):
                    count = len(manifest.images_of(shard))
                    part = itertools.islice(records, count)
                    each = (record for image in counted(part, progress) for record in image)
                    write_shard(directory / manifest.shard_name(shard), each)
    first_error("")  # waits for all
    on_first_process(functools.partial(finish, directory, manifest))
    log.info("latents of %d images in %s", manifest.images, directory)


def begin(directory: Path, manifest: Manifest) -> None:
    """Makes the directory, or checks that it holds a part of the same latents.

    Raises:
        ConfigError: it holds others, or there is too little room.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / MANIFEST).exists():
        try:
            found = Manifest.read(directory)
        except SourceError as error:
            raise ConfigError(f"latents.output: {error}; delete it to start over") from error
        remedy = "Use the old settings to finish it, delete it to start over, or use another output"
        wanted = Provenance.of(dataclasses.asdict(dataclasses.replace(manifest, complete=False)))
        values = dataclasses.asdict(dataclasses.replace(found, complete=False))
        where = f"{directory / MANIFEST}"
        wanted.require_same(Provenance.of(values).values, where, remedy)
    elif any(directory.glob("*.array_record")):
        expected = f"a new directory; {directory} holds shards without {MANIFEST}"
        raise invalid_value("latents.output", str(directory.parent), expected)
    for cut_off in directory.glob(".*.array_record.*"):  # by a process that was killed
        cut_off.unlink()
    missing = manifest.missing(directory)
    images = sum(len(manifest.images_of(shard)) for shard in missing)
    needed = images * manifest.records_per_image * manifest.record_bytes
    free = math.inf if is_url(directory) else shutil.disk_usage(directory).free
    if needed > free:
        expected = f"a disk with {needed / 1e9:.3g} GB free; this one has {free / 1e9:.3g} GB"
        raise invalid_value("latents.output", str(directory.parent), expected)
    if missing:
        log.info(
            "%s: %d of %d shards are to be written, %.3g GB",
            *(directory, len(missing), manifest.num_shards, needed / 1e9),
        )
        manifest.write(directory)


def finish(directory: Path, manifest: Manifest) -> None:
    """Checks that all shards are there, and says so in the manifest."""
    if missing := manifest.missing(directory):
        raise ConfigError(
            f"latents.output: {directory} lacks {len(missing)} of {manifest.num_shards} shards, "
            "which other processes have written; expected a directory that all hosts share"
        )
    dataclasses.replace(manifest, complete=True).write(directory)


def spans(shards: list[int]) -> Iterator[tuple[int, int]]:
    """Yields the first and last of each run of consecutive numbers."""
    for _, group in itertools.groupby(enumerate(shards), lambda pair: pair[1] - pair[0]):
        run = [shard for _, shard in group]
        yield run[0], run[-1]


def counted(images: Iterator[list[bytes]], progress: tqdm) -> Iterator[list[bytes]]:
    """Yields the images and moves the bar."""
    for image in images:
        yield image
        progress.update()


def encoded(
    config: Config, source: Source, rae: Model, mesh: Mesh, manifest: Manifest, images: range
) -> Generator[list[bytes], None, None]:
    """Yields the records of each of a range of images, encoded on this process's devices.

    Raises:
        ConfigError: a latent is not finite.
    """
    size = config.data.batch_size * mesh.size // jax.device_count()
    with ordered_batches(
        source,
        batch_size=size,
        limit=images.stop,
        start=images.start,
        num_workers=config.data.num_workers,
    ) as batches:
        queue: list[tuple[np.ndarray, list[Tree]]] = []
        done = images.start

        def fetch() -> Iterator[list[bytes]]:
            nonlocal done
            labels, found = queue.pop(0)
            host = jax.device_get(found)
            real = min(size, images.stop - done)
            for row, label in enumerate(labels[:real]):
                if not all(part["finite"][row] for part in host):
                    raise ConfigError(
                        f"encoder: got a latent that is not finite, of image {done + row}; check "
                        "the encoder's weights, or compute with precision='fp32'"
                    )
                yield [
                    to_record(
                        label, part["latent"][row], part["scale"][row] if "scale" in part else None
                    )
                    for part in host
                ]
            done += real

        for batch in batches:
            image = shard_batch({"image": batch["image"]}, mesh)["image"]
            stored = encode(*rae, image, manifest.storage, manifest.mirrored)
            queue.append((batch["label"], stored))
            if len(queue) > 1:  # the devices encode this batch while the one before is written
                yield from fetch()
        while queue:
            yield from fetch()


@compiler.jit(static_argnums=(0, 3, 4))
def encode(
    graph: nnx.GraphDef, parameters: Tree, image: jax.Array, storage: LatentStorage, mirrored: bool
) -> list[Tree]:
    """Encodes images, and their mirror images, to what is stored; "finite" tells bad rows."""
    found = []
    for each in (image, image[:, :, ::-1]) if mirrored else (image,):
        latent = nnx.merge(graph, parameters).encode(to_unit(each))
        finite = jnp.isfinite(latent).all(axis=(1, 2, 3))
        found.append(pack(latent, storage) | {"finite": finite})
    return found
