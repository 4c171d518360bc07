"""Sharding: one device mesh, one table from axis names to mesh axes.

The mesh has two axes, (replica, fsdp). The batch is split over both. Parameters are copied along
`replica` and split along `fsdp`, so fsdp = 1 is data parallelism, fsdp = all devices is fully
sharded, and anything between is the hybrid (HSDP). The same program runs in all of them: XLA
inserts the collectives.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, use_abstract_mesh
from jax.sharding import PartitionSpec as P

RULES: dict[str, str | None] = {
    "embed": "fsdp",  # the model's width: 384 ... 2048, all multiples of 128
    "mlp": None,
    "heads": None,
    "modulation": None,
}
"""Logical axis of a kernel -> mesh axis (None: not split). "embed" alone suffices for FSDP, and
its widths divide; the SwiGLU width 5461 of the wide head is prime to everything."""


def make_mesh(fsdp: int, devices: list[jax.Device] | None = None) -> Mesh:
    """Makes a (replica, fsdp) mesh over all devices of all processes.

    Args:
        fsdp: devices that share one copy of the parameters; divides their number.
        devices: defaults to all.

    Raises:
        ValueError: when fsdp does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) % fsdp:
        raise ValueError(
            f"sharding.fsdp: got {fsdp}; expected a divisor of the {len(devices)} devices"
        )
    shape = (len(devices) // fsdp, fsdp)
    grid = mesh_utils.create_device_mesh(shape, devices=devices, allow_split_physical_axes=True)
    return Mesh(grid, ("replica", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Replicates: a whole copy on every device."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis over all devices."""
    return NamedSharding(mesh, P(("replica", "fsdp")))


def mesh_context(mesh: Mesh) -> AbstractContextManager[object]:
    """Makes a `with` block in which traced functions know the mesh.

    Models then split activations along the batch (models/stack.py). Without it, parameters that are
    split along their width make XLA split activations likewise, the whole batch on every device.
    """
    return use_abstract_mesh(mesh.abstract_mesh)


def with_mesh(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """Traces `function` under `mesh`, which `models.stack` reads to shard activations."""

    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        with mesh_context(mesh):
            return function(*arguments)

    return traced


def parameter_shardings(model: nnx.Module, mesh: Mesh) -> dict:
    """Reads the shardings of a model's parameters off the axis names they carry.

    Args:
        model: the model, or its abstract form (`nnx.eval_shape`).
        mesh: from `make_mesh`.

    Returns:
        A nested dict like `nnx.to_pure_dict(nnx.state(model))`.
    """
    state = nnx.state(model)
    flat = {path: variable_sharding(variable, mesh) for path, variable in nnx.to_flat_state(state)}
    return nnx.traversals.unflatten_mapping(flat)


def variable_sharding(variable: nnx.Variable, mesh: Mesh) -> NamedSharding:
    """Looks up the sharding of one variable: `axes` metadata through RULES, else replicated.

    A stacked variable has more dimensions than names; the leading ones (layers) are not split.
    A dimension that the mesh axis does not divide is copied too: correct, only larger.
    """
    metadata = variable.get_metadata()
    if "axes" not in metadata:
        return replicated(mesh)
    shape = variable.get_value().shape
    names = (None,) * (len(shape) - len(metadata["axes"])) + metadata["axes"]
    mesh_axes = [RULES[name] if name is not None else None for name in names]
    spec = [
        axis if axis is not None and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(mesh_axes, shape, strict=True)
    ]
    return NamedSharding(mesh, P(*spec))


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays, split over all devices, from this process's rows."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in batch.items()
    }
