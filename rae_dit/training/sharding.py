"""Sharding: one device mesh, one table from axis names to mesh axes.

The mesh has two axes, (replica, fsdp). The batch is split over both. Parameters are copied along
`replica` and split along `fsdp`, so fsdp = 1 is data parallelism, fsdp = all devices is fully
sharded, and anything between is the hybrid (HSDP). The same program runs in all of them: XLA
inserts the collectives. Several TPU slices are replicas of each other: parameters are gathered over
the links within a slice, and only gradients go over the slower network between slices.
"""

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, use_abstract_mesh
from jax.sharding import PartitionSpec as P

from rae_dit.config.check import invalid_value

RULES = ("embed", "mlp", "heads", "modulation")
"""Logical axes of kernels that are split along mesh axis "fsdp", in order of preference.

Each kernel is split along one axis, the first of these whose size divides. "embed" is the model's
width, 384 ... 2048, multiples of 128; the wide head's "mlp" of 5461 is prime to almost everything.
Stacked layers are not among them: a loop over layers would gather all of them at once."""

LARGEST_SHARE = 2  # of an even split: parameters of one device, when some cannot be split


def make_mesh(fsdp: int, devices: list[jax.Device] | None = None) -> Mesh:
    """Makes a (replica, fsdp) mesh over all devices of all processes.

    Args:
        fsdp: devices that share one copy of the parameters; divides their number, or with several
            TPU slices that of one slice.
        devices: defaults to all.

    Raises:
        ConfigError: when fsdp does not divide that number.
    """
    devices = jax.devices() if devices is None else devices
    slices = count_slices(devices)
    within = len(devices) // slices
    if within % fsdp:
        place = f"the {within} devices" + (f" of each of {slices} slices" if slices > 1 else "")
        raise invalid_value("sharding.fsdp", fsdp, f"a divisor of {place}")
    shape = (within // fsdp, fsdp)
    if slices == 1:
        grid = mesh_utils.create_device_mesh(shape, devices=devices, allow_split_physical_axes=True)
    else:
        grid = mesh_utils.create_hybrid_device_mesh(
            shape, (slices, 1), devices=devices, allow_split_physical_axes=True
        )
    return Mesh(grid, ("replica", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def count_slices(devices: Sequence[jax.Device]) -> int:
    """Counts the TPU slices that devices belong to; 1 for other devices.

    GPUs have a `slice_index`, too, of hosts that share an NVLink network; one process per host and
    JAX's order already keep `fsdp` within a host where it fits.
    """
    return len({getattr(d, "slice_index", 0) if d.platform == "tpu" else 0 for d in devices})


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
    """Splits a variable along the axis that RULES choose, if there is one; else copies it."""
    names, shape = variable.get_metadata().get("axes"), variable.get_value().shape
    if names is None:
        return replicated(mesh)
    axis = split_axis(names, shape, mesh.shape["fsdp"])
    return NamedSharding(
        mesh, P(*("fsdp" if number == axis else None for number in range(len(shape))))
    )


def split_axis(names: Sequence[str | None], shape: Sequence[int], parts: int) -> int | None:
    """Chooses the axis along which an array is split.

    Args:
        names: of its last axes; leading ones (layers) have none.
        shape: of the array.
        parts: to split it into.

    Returns:
        Number of the axis with the first name in RULES whose size `parts` divides; None where
        there is none: such an array is copied.
    """
    first = len(shape) - len(names)
    fitting = {name: first + i for i, name in enumerate(names) if shape[first + i] % parts == 0}
    return next((fitting[name] for name in RULES if name in fitting), None)


def check_fsdp(model: nnx.Module, mesh: Mesh) -> None:
    """Checks that `sharding.fsdp` splits enough of a model to be worth its name.

    Args:
        model: the trained network, or its abstract form.
        mesh: from `make_mesh`.

    Raises:
        ConfigError: a device would hold more than `LARGEST_SHARE` times an even split; one line
            with the share of the parameters that is copied, and the largest value that works.
    """
    fsdp = mesh.shape["fsdp"]
    copied = copied_share(model, fsdp)
    if not is_split(copied, fsdp):
        expected = (
            f"{fitting_fsdp(model, mesh.size)[-1]}, the largest divisor of {mesh.size} devices "
            f"that works; {fsdp} divides no axis of {copied:.0%} of the parameters, which every "
            "device would hold whole"
        )
        raise invalid_value("sharding.fsdp", fsdp, expected)


def fitting_fsdp(model: nnx.Module, num_devices: int) -> list[int]:
    """Lists the divisors of a number of devices that `check_fsdp` accepts, in ascending order."""
    divisors = (n for n in range(1, num_devices + 1) if num_devices % n == 0)
    return [n for n in divisors if is_split(copied_share(model, n), n)]


def is_split(copied: float, fsdp: int) -> bool:
    """Tells whether a device holds at most `LARGEST_SHARE` times an even split."""
    return local_share(copied, fsdp) <= LARGEST_SHARE / fsdp


def local_share(copied: float, fsdp: int) -> float:
    """Computes the share of the parameters that one device holds if `copied` of them are whole."""
    return copied + (1 - copied) / fsdp


def copied_share(model: nnx.Module, fsdp: int) -> float:
    """Computes the share of a model's parameters that splitting into `fsdp` parts leaves whole."""
    whole = total = 0
    for _, variable in nnx.to_flat_state(nnx.state(model)):
        names, shape = variable.get_metadata().get("axes", ()), variable.get_value().shape
        size = math.prod(shape)
        total += size
        whole += size if split_axis(names, shape, fsdp) is None else 0
    return whole / total


def local_rows(mesh: Mesh, batch_size: int, process_index: int | None = None) -> np.ndarray:
    """Finds the rows of every batch that lie on a process's devices, int64 [B], ascending.

    On a torus the devices of a host are not next to each other in the mesh, so these rows need not
    be. If every process reads its own, no row depends on which host has which devices.

    Args:
        mesh: its devices split the batch; their number divides it.
        batch_size: rows over all processes.
        process_index: the process; None: this one.
    """
    process = jax.process_index() if process_index is None else process_index
    devices = mesh.devices.flatten()
    rows = np.arange(batch_size).reshape(len(devices), -1)
    return rows[[device.process_index == process for device in devices]].reshape(-1)


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays, split over all devices, from this process's `local_rows`."""
    sharding = batch_sharding(mesh)
    devices = len(sharding.addressable_devices)

    def place(value: np.ndarray) -> jax.Array:
        each = len(value) // devices
        size = each * mesh.size
        rows = local_rows(mesh, size)

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # the device takes part
            first = int(np.searchsorted(rows, index[0].start or 0))
            return value[first : first + each]

        return jax.make_array_from_callback((size, *value.shape[1:]), sharding, part)

    return {name: place(value) for name, value in batch.items()}
