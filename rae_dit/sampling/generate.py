"""Images from a trained DiT^DH: what sampling, evaluation and the grids of a training run share.

Image number i depends on `sample.seed`, i and its label: its noise is drawn from these alone. The
batch size is filled up to a multiple of the devices, and the last batch with images that are thrown
away, so that one compiled program serves all.
"""

import functools
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int, Key
from tqdm import tqdm

from rae_dit.config import Config
from rae_dit.models.ddt import DDT
from rae_dit.models.rae import RAE
from rae_dit.sampling import codec
from rae_dit.sampling.latents import keys_of, noise_of, sample_latents
from rae_dit.setup import models, weights
from rae_dit.training.sharding import batch_sharding, make_mesh, mesh_context, replicated

STEP_NOISE = 2**32 - 1  # folded into the seed's key; no image has this number


class NotFiniteError(ValueError):
    """Images that hold NaN or infinity; the message is one line."""


class Generator(NamedTuple):
    """A DiT^DH (its EMA), the autoencoder whose latents it makes, and a weaker model or None."""

    ddt: DDT
    rae: RAE
    mesh: Mesh
    guide: DDT | None = None


class Share(NamedTuple):
    """Those images of a batch that this process's devices hold, float32 in [0, 1]."""

    numbers: Int[np.ndarray, " b"]
    images: Float[np.ndarray, "b H W 3"]


def load_generator(config: Config, workdir: Path) -> Generator:
    """Loads the newest EMA of a stage-2 run, the autoencoder it names, and the guide if any.

    Raises:
        ConfigError: the guide is for other latents or classes, or the config says otherwise.
        CheckpointError: there is no sound checkpoint, or it has no EMA.
        WeightsError: a file of others cannot be used.
    """
    mesh = make_mesh(config.sharding.fsdp)
    guide = weights.place_guide(config, mesh) if config.sample.guide_checkpoint else None
    ddt = weights.place_ddt(config, workdir, mesh)
    rae = weights.place_rae(config, mesh, decoder=True)
    merged = None if guide is None else nnx.merge(*guide)
    return Generator(nnx.merge(*ddt), nnx.merge(*rae), mesh, merged)


def generate(
    generator: Generator,
    config: Config,
    labels: Sequence[int],
    *,
    cfg_scale: float,
    first: int = 0,
) -> Iterator[Float[np.ndarray, "b H W 3"]]:
    """Yields the images of `labels` in order, batch by batch, float32 in [0, 1], on every process.

    Args:
        generator: models, and the devices they lie on.
        config: `sample.*` says how; its labels and guidance scale are not read.
        labels: class of each image.
        cfg_scale: guidance scale; 1 is none.
        first: number of the first image.
    """
    for start, batch in batches(generator, config, labels, cfg_scale=cfg_scale, first=first):
        images = multihost_utils.process_allgather(batch, tiled=True)
        yield np.asarray(images)[: len(labels) - start]


def generate_shares(
    generator: Generator,
    config: Config,
    labels: Sequence[int],
    *,
    cfg_scale: float,
    wanted: Container[int],
) -> Iterator[Share]:
    """Yields each process its own images only, once a batch.

    Args:
        generator: models, and the devices they lie on.
        config: `sample.*` says how; its labels and guidance scale are not read.
        labels: class of each image, from number 0 on.
        cfg_scale: guidance scale; 1 is none.
        wanted: numbers of images that are needed. A batch without any is passed over, and one with
            some is computed whole, so that each image is computed in the same company whatever is
            wanted.
    """
    sharding = batch_sharding(generator.mesh)
    for start, batch in batches(generator, config, labels, cfg_scale=cfg_scale, wanted=wanted):
        shards = jax.device_put(batch, sharding).addressable_shards
        rows = [np.arange(len(batch))[shard.index[0]] for shard in shards]
        numbers = start + np.concatenate(rows)
        images = np.concatenate([np.asarray(shard.data) for shard in shards])
        needed = [i for i, number in enumerate(numbers) if number in wanted]
        yield Share(numbers[needed], images[needed])


def batches(
    generator: Generator,
    config: Config,
    labels: Sequence[int],
    *,
    cfg_scale: float,
    first: int = 0,
    wanted: Container[int] | None = None,
) -> Iterator[tuple[int, Float[Array, "B H W 3"]]]:
    """Yields (place in `labels` of the batch's first image, images on all devices).

    Shows progress on process 0. In a single process the next batch is on its way while the caller
    works on this one.

    Raises:
        NotFiniteError: an image is not finite; as a picture it would be black, and no more be seen.
    """
    size = whole(config.sample.batch_size, generator.mesh)
    spans = [range(i, min(i + size, len(labels))) for i in range(0, len(labels), size)]
    needed = [span for span in spans if wanted is None or any(i in wanted for i in span)]
    done = len(labels) - sum(map(len, needed))
    graph, parameters = nnx.split(generator.rae)
    waiting: list[tuple[range, Array]] = []
    # Programs of several processes run one at a time: on CPUs those in flight together run in any
    # order, and collectives taken in different orders wait for each other for ever.
    ahead = 1 if jax.process_count() == 1 else 0
    with tqdm(
        total=len(labels),
        initial=done,
        desc=f"sampling, cfg_scale {cfg_scale:g}",
        unit="image",
        disable=jax.process_index() > 0,
    ) as progress:
        for span in [*needed, None]:
            if span is not None:
                chosen = np.resize(np.asarray(labels[span.start : span.stop], np.int32), size)
                latents = make_latents(generator, config, chosen, cfg_scale, first + span.start)
                waiting.append((span, codec.decode(graph, parameters, latents)))
            if len(waiting) > ahead or (span is None and waiting):
                finished, images = waiting.pop(0)
                bad = ~np.asarray(finite(images, replicated(generator.mesh)))[: len(finished)]
                if bad.any():
                    place = finished[int(np.argmax(bad))]
                    raise NotFiniteError(
                        f"image {first + place} (label {labels[place]}) is not finite: the model "
                        f"has diverged, or sample.method {config.sample.method!r} needs other "
                        "settings (dopri5 a larger sample.rtol, guidance a smaller cfg_scale)"
                    )
                yield finished.start, images
                progress.update(len(finished))


def make_latents(
    generator: Generator,
    config: Config,
    labels: Int[np.ndarray, " B"],
    cfg_scale: float,
    first: int,
) -> Float[Array, "B h w C"]:
    """Latents of the images numbered first, first + 1, ...; B fills the devices."""
    settings = config.sample
    noise, on_devices, keys = start_of(
        np.arange(first, first + len(labels), dtype=np.int32),
        labels,
        seed=settings.seed,
        shape=generator.rae.latent_shape,
        sharding=batch_sharding(generator.mesh),
    )
    with mesh_context(generator.mesh):
        return sample_latents(
            generator.ddt,
            noise,
            on_devices,
            steps=settings.num_steps,
            method=settings.method,
            shift=models.latent_shift(config),
            cfg_scale=cfg_scale,
            cfg_interval=settings.cfg_interval,
            guide=generator.guide,
            grid=settings.grid,
            rtol=settings.rtol,
            atol=settings.atol,
            keys=keys,
            diffusion_norm=settings.diffusion_norm,
            last_step=settings.last_step,
            last_step_size=settings.last_step_size,
        )


@functools.partial(jax.jit, static_argnames=("seed", "shape", "sharding"))
def start_of(
    numbers: Int[Array, " B"],
    labels: Int[Array, " B"],
    *,
    seed: int,
    shape: tuple[int, int, int],
    sharding: NamedSharding,
) -> tuple[Float[Array, "B h w C"], Int[Array, " B"], Key[Array, " B"]]:
    """Initial noise, labels and keys of later noise, made where the images will be."""
    key = jax.random.key(seed)
    later = keys_of(jax.random.fold_in(key, STEP_NOISE), numbers)
    parts = (noise_of(key, numbers, shape), labels, later)
    return jax.lax.with_sharding_constraint(parts, sharding)


@functools.partial(jax.jit, static_argnums=1)
def finite(images: Float[Array, "B H W 3"], everywhere: NamedSharding) -> Bool[Array, " B"]:
    """Whether all numbers of each image are finite, on every device."""
    return jax.lax.with_sharding_constraint(jnp.isfinite(images).all(axis=(1, 2, 3)), everywhere)


def whole(size: int, mesh: Mesh) -> int:
    """A batch size, filled up to a multiple of the devices."""
    return -(-size // mesh.size) * mesh.size


def cycle(labels: Sequence[int], count: int) -> list[int]:
    """`count` labels, each of `labels` in turn."""
    return [labels[i % len(labels)] for i in range(count)]
