"""The training step, compiled before its state and its first batch are there.

Compiling takes most of a start, and needs shapes alone. So it goes on in a thread while weights are
drawn or restored and the loader's workers start. On a GPU XLA times candidates for a product while
it compiles; what else the device does then may make it choose others than alone (not measured).
"""

import jax
import numpy as np

from rae_dit.config import Config
from rae_dit.data.latents import DTYPES, SCALE, StoredLatents
from rae_dit.data.sources import Source
from rae_dit.training.run import Run
from rae_dit.training.sharding import batch_sharding


def compile_step(run: Run, matmul_precision: str) -> None:
    """Compiles the step of a run for what it will be called with; JAX keeps the program.

    Args:
        run: whose step it is.
        matmul_precision: JAX's, that the step will be called under: a thread has its own.
    """
    sharding = batch_sharding(run.mesh)
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for name, (shape, dtype) in batch_shapes(run.config, run.source).items()
    }
    with jax.default_matmul_precision(matmul_precision):
        run.program.step.lower(run.program.abstract, run.frozen, batch).compile()


def batch_shapes(config: Config, source: Source) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Returns shape and dtype of every array of a training batch, over all processes."""
    count, side = config.data.batch_size, config.data.image_size
    found: dict[str, tuple[tuple[int, ...], np.dtype]] = {"label": ((count,), np.dtype(np.int32))}
    if not isinstance(source, StoredLatents):
        return found | {"image": ((count, side, side, 3), np.dtype(np.uint8))}
    manifest = source.manifest
    found["latent"] = (count, *manifest.shape), DTYPES[manifest.storage]
    if manifest.storage == "fp8":
        found["scale"] = (count, manifest.shape[-1]), SCALE
    return found
