"""The training step compiled ahead of time for a mesh of devices; no array is made.

What is compiled is what runs: the step of `training.program` with the state's own shapes and
shardings, the frozen networks' and the batch's.
"""

import dataclasses
import re
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rae_dit.config import Config
from rae_dit.objectives.base import Tree
from rae_dit.setup import models
from rae_dit.setup.objectives import make_task
from rae_dit.training.program import build_program
from rae_dit.training.sharding import batch_sharding, replicated
from rae_dit.training.state import TrainState

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Step(NamedTuple):
    """An untraced step and its arguments as shapes with shardings."""

    function: jax.stages.Wrapped
    state: TrainState
    frozen: Tree
    batch: Tree
    matmul_precision: str


class Compiled(NamedTuple):
    """The compiler's account of a step.

    Attributes:
        temporary_bytes: of one device, beside the arguments: activations, gradients, copies.
        text: the program; "" when it was refused because it does not fit.
        seconds: trace and compile took.
    """

    temporary_bytes: int
    text: str
    seconds: float


def without_files(config: Config) -> Config:
    """Returns the config with random weights everywhere, of the same sizes."""
    return dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, pretrained="", checkpoint="", statistics=""),
        decoder=dataclasses.replace(config.decoder, pretrained="", checkpoint=""),
        discriminator=dataclasses.replace(config.discriminator, pretrained=""),
        perceptual=dataclasses.replace(config.perceptual, vgg="", linear=""),
        few_step=dataclasses.replace(
            config.few_step, teacher="", guide_checkpoint="", guidance="cfg"
        ),
    )


def abstract_step(config: Config, mesh: Mesh) -> Step:
    """Builds the step of a config `without_files`."""
    task = make_task(config)
    program = build_program(task, mesh, seed=config.seed)
    everywhere = replicated(mesh)
    frozen = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
        jax.eval_shape(lambda: task.load_frozen(mesh)),
    )
    images, side = config.data.batch_size, config.data.image_size
    split = batch_sharding(mesh)
    batch = {"label": jax.ShapeDtypeStruct((images,), jnp.int32, sharding=split)}
    if config.data.source == "latents":
        shape = (images, *models.latent_shape(config))
        batch["latent"] = jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=split)
    else:
        shape = (images, side, side, 3)
        batch["image"] = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=split)
    return Step(program.step, program.abstract, frozen, batch, models.matmul_precision(config))


def compile_step(step: Step, options: dict[str, str | bool] | None = None) -> Compiled:
    """Traces and compiles a step.

    A compiler that knows how much memory there is refuses what does not fit and says what it would
    need.

    Args:
        step: what to compile.
        options: for the compiler, beside the step's own.
    """
    started = time.perf_counter()
    try:
        with jax.default_matmul_precision(step.matmul_precision):
            lowered = step.function.lower(step.state, step.frozen, step.batch)
        compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        temporary = needed_bytes(str(error))
        if temporary is None:
            raise
        return Compiled(temporary, "", time.perf_counter() - started)
    found = compiled.memory_analysis()
    if found is None:
        raise NotImplementedError("The backend does not say how much memory a program needs.")
    temporary = found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return Compiled(temporary, compiled.as_text() or "", time.perf_counter() - started)


def needed_bytes(message: str) -> int | None:
    """Reads how much a program refused for memory would need; None for other refusals."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    match = re.search(r"HLO temporaries \(([\d.]+)([KMGT])\)", message) or re.search(
        r"Used ([\d.]+)([KMGT]) of", message
    )
    return int(float(match[1]) * UNITS[match[2]]) if match else None
