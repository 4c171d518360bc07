"""Generation of images with a trained DiT^DH, batch by batch over all devices.

Image number i depends on the seed, i and its label: its noise is drawn from these alone. The batch
size is rounded up to a multiple of the devices, and the last batch is padded with images that are
discarded, so that one compiled program serves all.

setup/sampling.py loads a `Generator`; training makes one of its EMA.
"""

import functools
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int, Key
from tqdm import tqdm

from rae_dit.diffusion.sampler import SamplerOptions
from rae_dit.models.ddt import DDT
from rae_dit.models.rae import RAE
from rae_dit.sampling import codec
from rae_dit.sampling.latents import initial_noise, run_sampler, sample_keys
from rae_dit.training.sharding import batch_sharding, mesh_context, replicated

STEP_NOISE = 2**32 - 1  # folded into the seed's key for the solver's noise; no image's number


class NotFiniteError(ValueError):
    """An image holds NaN or infinity; the message is one line."""


class Generator(NamedTuple):
    """The models that make images, and the mesh that they lie on.

    Attributes:
        ddt: the DiT^DH, with EMA parameters.
        rae: the autoencoder that decodes its latents.
        mesh: all devices that share the work.
        guide: the weaker model of AutoGuidance, or None.
    """

    ddt: DDT
    rae: RAE
    mesh: Mesh
    guide: DDT | None = None


class GenerationSettings(NamedTuple):
    """Settings that images depend on, besides models, labels and guidance scale.

    Attributes:
        options: of the sampler.
        batch_size: images at once over all devices; rounded up to a multiple of their number.
        seed: of all noise.
    """

    options: SamplerOptions
    batch_size: int
    seed: int


class Share(NamedTuple):
    """Images of one batch that this process's devices hold, float32 in [0, 1]."""

    numbers: Int[np.ndarray, " b"]
    images: Float[np.ndarray, "b H W 3"]


def generate(
    generator: Generator,
    settings: GenerationSettings,
    labels: Sequence[int],
    *,
    cfg_scale: float,
    first: int = 0,
) -> Iterator[Float[np.ndarray, "b H W 3"]]:
    """Yields the images of `labels` in order, batch by batch, float32 in [0, 1], on every process.

    Args:
        generator: models, and the mesh that they lie on.
        settings: of sampler, batches and noise.
        labels: class of each image.
        cfg_scale: guidance scale; 1 is none.
        first: number of the first image.

    Raises:
        NotFiniteError: an image is not finite.
    """
    for start, batch in batches(generator, settings, labels, cfg_scale=cfg_scale, first=first):
        images = multihost_utils.process_allgather(batch, tiled=True)
        yield np.asarray(images)[: len(labels) - start]


def generate_shares(
    generator: Generator,
    settings: GenerationSettings,
    labels: Sequence[int],
    *,
    cfg_scale: float,
    wanted: Container[int],
) -> Iterator[Share]:
    """Yields each process the images that its own devices hold, once a batch.

    Args:
        generator: models, and the mesh that they lie on.
        settings: of sampler, batches and noise.
        labels: class of each image, from number 0 on.
        cfg_scale: guidance scale; 1 is none.
        wanted: numbers of the images that are needed. A batch without any is skipped; one with some
            is computed completely, so that an image is always part of the same batch.

    Raises:
        NotFiniteError: an image is not finite.
    """
    sharding = batch_sharding(generator.mesh)
    for start, batch in batches(generator, settings, labels, cfg_scale=cfg_scale, wanted=wanted):
        shards = jax.device_put(batch, sharding).addressable_shards
        rows = [np.arange(len(batch))[shard.index[0]] for shard in shards]
        numbers = start + np.concatenate(rows)
        images = np.concatenate([np.asarray(shard.data) for shard in shards])
        needed = [i for i, number in enumerate(numbers) if number in wanted]
        yield Share(numbers[needed], images[needed])


def batches(
    generator: Generator,
    settings: GenerationSettings,
    labels: Sequence[int],
    *,
    cfg_scale: float,
    first: int = 0,
    wanted: Container[int] | None = None,
) -> Iterator[tuple[int, Float[Array, "B H W 3"]]]:
    """Yields (index in `labels` of the batch's first image, images on all devices).

    Shows progress on process 0. In a single process the next batch is computed while the caller
    works on this one.

    Raises:
        NotFiniteError: an image is not finite; written to a file it would only look black.
    """
    devices = generator.mesh.size
    size = -(-settings.batch_size // devices) * devices  # rounded up
    spans = [range(i, min(i + size, len(labels))) for i in range(0, len(labels), size)]
    needed = [span for span in spans if wanted is None or any(i in wanted for i in span)]
    done = len(labels) - sum(map(len, needed))
    graph, parameters = nnx.split(generator.rae)
    waiting: list[tuple[range, Array]] = []
    # Programs of several processes run one at a time: CPU devices run programs in flight in any
    # order, and collectives entered in different orders deadlock.
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
                latents = make_latents(
                    generator, settings, chosen, cfg_scale=cfg_scale, first=first + span.start
                )
                waiting.append((span, codec.decode(graph, parameters, latents)))
            if len(waiting) > ahead or (span is None and waiting):
                finished, images = waiting.pop(0)
                bad = ~np.asarray(are_finite(images, replicated(generator.mesh)))[: len(finished)]
                if bad.any():
                    place = finished[int(np.argmax(bad))]
                    raise NotFiniteError(
                        f"image {first + place} (label {labels[place]}) is not finite: the model "
                        f"has diverged, or sample.method {settings.options.method!r} needs other "
                        "settings (dopri5 a larger sample.rtol, guidance a smaller cfg_scale)"
                    )
                yield finished.start, images
                progress.update(len(finished))


def make_latents(
    generator: Generator,
    settings: GenerationSettings,
    labels: Int[np.ndarray, " B"],
    *,
    cfg_scale: float,
    first: int,
) -> Float[Array, "B h w C"]:
    """Samples the latents of the images numbered first, first + 1, ...; devices divide B."""
    noise, on_devices, keys = initial_inputs(
        np.arange(first, first + len(labels), dtype=np.int32),
        labels,
        seed=settings.seed,
        shape=generator.rae.latent_shape,
        sharding=batch_sharding(generator.mesh),
    )
    with mesh_context(generator.mesh):
        return run_sampler(
            generator.ddt,
            noise,
            on_devices,
            settings.options,
            cfg_scale=cfg_scale,
            guide=generator.guide,
            keys=keys,
        )


@functools.partial(jax.jit, static_argnames=("seed", "shape", "sharding"))
def initial_inputs(
    numbers: Int[Array, " B"],
    labels: Int[Array, " B"],
    *,
    seed: int,
    shape: tuple[int, int, int],
    sharding: NamedSharding,
) -> tuple[Float[Array, "B h w C"], Int[Array, " B"], Key[Array, " B"]]:
    """Draws initial noise, and returns it with labels and sample keys, split over the devices."""
    key = jax.random.key(seed)
    keys = sample_keys(jax.random.fold_in(key, STEP_NOISE), numbers)
    inputs = (initial_noise(key, numbers, shape), labels, keys)
    return jax.lax.with_sharding_constraint(inputs, sharding)


@functools.partial(jax.jit, static_argnums=1)
def are_finite(images: Float[Array, "B H W 3"], everywhere: NamedSharding) -> Bool[Array, " B"]:
    """Tells whether all numbers of each image are finite, on every device."""
    return jax.lax.with_sharding_constraint(jnp.isfinite(images).all(axis=(1, 2, 3)), everywhere)
