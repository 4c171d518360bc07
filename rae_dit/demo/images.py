"""Images of the demo page: samples batch by batch, the way from noise, files to take away."""

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, UInt8
from PIL import Image

from rae_dit.data.transforms import to_uint8
from rae_dit.demo.model import Model
from rae_dit.demo.settings import Settings
from rae_dit.evaluation.image_grid import resize
from rae_dit.sampling import codec
from rae_dit.sampling.generate import Generator, generate, initial_inputs
from rae_dit.sampling.trajectory import sample_trajectory
from rae_dit.storage.files import write_bytes
from rae_dit.training.sharding import batch_sharding, mesh_context

FRAMES = 8  # of a strip

Item = TypeVar("Item")


class Strip(NamedTuple):
    """An image on its way from noise.

    Attributes:
        times: of the frames, from 1 down.
        states: x_t, decoded.
        estimates: the clean image that the model sees in x_t.
    """

    times: Float[np.ndarray, " F"]
    states: UInt8[np.ndarray, "F H W 3"]
    estimates: UInt8[np.ndarray, "F H W 3"]


def make_images(model: Model, settings: Settings) -> Iterator[UInt8[np.ndarray, "b H W 3"]]:
    """Yields the images in order, some at a time.

    Raises:
        NotFiniteError: an image is not finite.
    """
    parts = generate(
        generator_for(model, settings),
        settings.generation(model.shift),
        settings.image_labels(),
        cfg_scale=settings.scale,
    )
    return map(to_uint8, each_within(lambda: precision(model), parts))


def make_strip(model: Model, settings: Settings, frames: int = FRAMES) -> Strip:
    """Samples the first image again, and keeps some states on its way.

    Raises:
        ValueError: the solver has no such states.
    """
    generator = generator_for(model, settings)
    copies = generator.mesh.size  # devices share a batch; of theirs one image is shown
    labels = np.resize(np.asarray(settings.image_labels()[:1], np.int32), copies)
    with precision(model):
        noise, on_devices, keys = initial_inputs(
            np.zeros(copies, np.int32),
            labels,
            seed=settings.seed,
            shape=generator.rae.latent_shape,
            sharding=batch_sharding(generator.mesh),
        )
        with mesh_context(generator.mesh):
            way = sample_trajectory(
                generator.ddt,
                noise,
                on_devices,
                settings.generation(model.shift).options,
                cfg_scale=settings.scale,
                frames=frames,
                guide=generator.guide,
                keys=keys,
            )
        graph, parameters = nnx.split(generator.rae)
        latents = np.concatenate([np.asarray(way.states)[:, 0], np.asarray(way.estimates)[:, 0]])
        padding = -len(latents) % copies
        latents = np.concatenate([latents, np.zeros((padding, *latents.shape[1:]), latents.dtype)])
        images = to_uint8(np.asarray(codec.decode(graph, parameters, jnp.asarray(latents))))
    count = len(way.times)
    return Strip(way.times, images[:count], images[count : 2 * count])


def generator_for(model: Model, settings: Settings) -> Generator:
    """Returns the model's networks, the guide among them only where it guides."""
    assert model.generator is not None  # `read_settings` has checked it
    if settings.guidance == "autoguidance":
        return model.generator
    return model.generator._replace(guide=None)


def precision(model: Model) -> AbstractContextManager[object]:
    """Returns a `with` block of the model's matrix products."""
    if model.precision is None:
        return contextlib.nullcontext()
    return jax.default_matmul_precision(model.precision)


def each_within(
    context: Callable[[], AbstractContextManager[object]], items: Iterator[Item]
) -> Iterator[Item]:
    """Yields items, each made within a context of its own.

    A page's server asks for each of them on another thread, and JAX's settings belong to threads.
    """
    while True:
        with context():
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


def enlarged(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H' W' 3"]:
    """Returns an image at the size at which it is shown; small ones are enlarged."""
    return resize(image / 255.0)


def png(image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """Returns the PNG file of an image."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def file_names(labels: list[int]) -> list[str]:
    """Names images as --mode=sample does: NUMBER_LABEL.png."""
    return [f"{number:06d}_{label}.png" for number, label in enumerate(labels)]


def archive(columns: dict[str, tuple[list[np.ndarray], list[int], str]]) -> bytes:
    """Returns a zip file of images, and of the command that makes them.

    Args:
        columns: folder ('' for none) -> images u8 [H, W, 3], their labels, the command.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for folder, (images, labels, text) in columns.items():
            prefix = f"{folder}/" if folder else ""
            for name, image in zip(file_names(labels), images, strict=False):
                file.writestr(prefix + name, png(image))
            file.writestr(f"{prefix}command.txt", text + "\n")
    return buffer.getvalue()


def write_images(model: Model, settings: Settings, directory: Path) -> int:
    """Writes the images as PNG files, each whole or not at all; returns their number."""
    names = iter(file_names(settings.image_labels()))
    count = 0
    for batch in make_images(model, settings):
        for image in batch:
            write_bytes(directory / next(names), png(image))
            count += 1
    return count
