"""Memory of each device: the state by its shardings, temporaries by the compiler."""

import math
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from rae_dit.planning.compiled import Step
from rae_dit.training.sharding import copied_share, fitting_fsdp, local_share

MENTIONED = 2**22  # bytes; smaller parameters are replicated without being reported


class Replicated(NamedTuple):
    """A parameter that is whole on every device although parameters are split."""

    path: str
    shape: tuple[int, ...]
    bytes: int


class Memory(NamedTuple):
    """Bytes on one device.

    Attributes:
        parameters, ema, optimizer: of the trained networks; `optimizer` has the moments.
        discriminator: its parameters, EMA and optimizer, if there is one.
        frozen: networks that are only used; whole on every device.
        batch: images and labels.
        temporaries: activations, gradients and all else that lives during a step.
    """

    parameters: int
    ema: int
    optimizer: int
    discriminator: int
    frozen: int
    batch: int
    temporaries: int

    @property
    def total(self) -> int:
        """Peak bytes of the step."""
        return sum(self)

    @property
    def state(self) -> int:
        """Bytes that do not depend on the batch."""
        return self.total - self.batch - self.temporaries


def count_memory(step: Step, temporaries: int) -> Memory:
    """Adds up a step's arguments; `temporaries` are the compiler's."""
    state = step.state
    return Memory(
        parameters=local_bytes(state.params),
        ema=local_bytes(state.ema),
        optimizer=local_bytes(state.opt_state),
        discriminator=local_bytes(state.discriminator),
        frozen=local_bytes(step.frozen),
        batch=local_bytes(step.batch),
        temporaries=temporaries,
    )


def local_bytes(tree: Any) -> int:
    """Counts bytes that one device holds of a tree of `ShapeDtypeStruct`s with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def replicated_parameters(step: Step, mesh: Mesh) -> list[Replicated]:
    """Lists parameters of more than `MENTIONED` bytes that `fsdp` does not split, largest first."""
    if mesh.shape["fsdp"] == 1:
        return []
    found = [
        Replicated(
            jax.tree_util.keystr(path, simple=True, separator="."),
            leaf.shape,
            leaf.size * leaf.dtype.itemsize,
        )
        for path, leaf in jax.tree.leaves_with_path(step.state.params)
        if leaf.sharding.is_fully_replicated and leaf.size * leaf.dtype.itemsize > MENTIONED
    ]
    return sorted(found, key=lambda parameter: -parameter.bytes)


def best_fsdp(module: nnx.Module, num_devices: int) -> int:
    """Finds the `sharding.fsdp` with which a device holds the fewest parameters.

    Args:
        module: the trained network, or its abstract form.
        num_devices: of the mesh.
    """
    fitting = fitting_fsdp(module, num_devices)
    return min(fitting, key=lambda fsdp: local_share(copied_share(module, fsdp), fsdp))
