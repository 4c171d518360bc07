"""Memory of each device: the state by its shardings, temporaries by the compiler."""

import math
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from rae_dit.planning.compiled import Step
from rae_dit.training.sharding import RULES

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


def best_fsdp(widths: list[int], num_devices: int) -> int:
    """Finds the largest divisor of the devices that splits every width.

    Args:
        widths: sizes of the axes that `sharding.RULES` lays over the fsdp axis.
        num_devices: of the mesh.
    """
    return math.gcd(num_devices, *widths)


def split_widths(module: nnx.Module) -> list[int]:
    """Collects the sizes of all axes of a module's parameters that the fsdp axis may split.

    Args:
        module: any, or its abstract form.
    """
    widths = set()
    for _, variable in nnx.to_flat_state(nnx.state(module)):
        names = variable.get_metadata().get("axes", ())
        shape = variable.get_value().shape
        for name, size in zip(names, shape[len(shape) - len(names) :], strict=True):
            if name is not None and RULES[name] == "fsdp":
                widths.add(size)
    return sorted(widths)
