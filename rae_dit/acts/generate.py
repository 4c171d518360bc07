"""Images from a trained DiT^DH: what `sample` and `evaluate` have in common."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8
from tqdm import tqdm

from rae_dit import build, loading
from rae_dit.config import Config, ConfigError
from rae_dit.models.ddt import DDT
from rae_dit.models.rae import RAE
from rae_dit.sampling import noise_of, sample_latents
from rae_dit.training.sharding import batch_sharding, make_mesh


class Generator(NamedTuple):
    """A DiT^DH (its EMA) and the autoencoder whose latents it makes."""

    ddt: DDT
    rae: RAE
    mesh: Mesh


def load_generator(config: Config, workdir: Path) -> Generator:
    """Loads the newest EMA of a stage-2 run and the decoder, encoder and statistics it names.

    Raises:
        ConfigError: a batch of samples cannot be split over the devices.
    """
    mesh = make_mesh(config.sharding.fsdp)
    if config.sample.batch_size % mesh.size:
        raise ConfigError(
            f"sample.batch_size: got {config.sample.batch_size}, expected a multiple of the "
            f"{mesh.size} devices"
        )
    ddt = loading.load_ddt(config, workdir, mesh)
    rae = loading.load_rae(config, mesh, decoder=True)
    return Generator(nnx.merge(*ddt), nnx.merge(*rae), mesh)


def generate(
    generator: Generator, config: Config, labels: Sequence[int], *, cfg_scale: float
) -> Iterator[Float[np.ndarray, "b H W 3"]]:
    """Yields the images of `labels` in order, batch by batch, float32 in [0, 1].

    Image number i depends on `sample.seed`, i and its label, not on the batch size.
    """
    size = config.sample.batch_size
    sharding = batch_sharding(generator.mesh)
    key = jax.random.key(config.sample.seed)
    shape = generator.rae.latent_shape
    starts = range(0, len(labels), size)
    for first in tqdm(starts, desc=f"sampling, cfg_scale {cfg_scale:g}", unit="batch"):
        wanted = np.asarray(labels[first : first + size], np.int32)
        padded = np.resize(wanted, size)  # the last batch keeps the compiled shape
        latents = sample_latents(
            generator.ddt,
            jax.device_put(noise_of(key, first, size, shape), sharding),
            jax.device_put(padded, sharding),
            steps=config.sample.num_steps,
            method=config.sample.method,
            shift=build.latent_shift(config),
            cfg_scale=cfg_scale,
            cfg_interval=config.sample.cfg_interval,
            grid=config.sample.grid,
            rtol=config.sample.rtol,
            atol=config.sample.atol,
        )
        images = decode(*nnx.split(generator.rae), latents)
        yield np.asarray(images)[: len(wanted)]


@jax.jit(static_argnums=0)
def decode(
    graph: nnx.GraphDef, parameters: nnx.State, latents: Float[Array, "B h w D"]
) -> Float[Array, "B H W 3"]:
    """Latents -> images in [0, 1], clipped: the decoder may overshoot."""
    return jnp.clip(nnx.merge(graph, parameters).decode(latents), 0, 1)


def to_uint8(images: Float[np.ndarray, "B H W 3"]) -> UInt8[np.ndarray, "B H W 3"]:
    """[0, 1] -> 0..255, truncated as the reference's tools do (not rounded)."""
    return (np.clip(images, 0, 1) * 255).astype(np.uint8)


def cycle(labels: Sequence[int], count: int) -> list[int]:
    """`count` labels, each of `labels` in turn."""
    return [labels[i % len(labels)] for i in range(count)]
