"""Reading by one replica: its processes read, and the devices hand the arrays to all others.

Otherwise every host reads the whole state: with 256 hosts and copies on all of them, 256 times its
size from one shared storage. Orbax's own `SingleReplicaArrayHandler` (0.12) wants hosts whose
devices are all in one replica or all outside, so not a copy on each of a host's devices, which is
the usual case; and it adds floats to zeros, which turns -0.0 into 0.0.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

CARRIERS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # bytes of an element -> dtype of its bits

Structs = Mapping[str, jax.ShapeDtypeStruct]


def read_by_first_replica(
    structs: Structs, read: Callable[[Structs], dict[str, jax.Array]]
) -> Callable[[], dict[str, jax.Array]]:
    """Reads arrays on the devices of the first replica; a process without any reads nothing.

    Args:
        structs: leaf name -> shape, dtype and wanted sharding. Every process reads all of them,
            unless all are on a mesh whose first axis copies them.
        read: reads leaves with the given shardings.

    Returns:
        A function that hands the arrays to all devices: a collective, to be called by all processes
        once all have read.

    Raises:
        ValueError: an array is not of the wanted shape and dtype.
    """
    if not all(is_copied(struct) for struct in structs.values()):
        found = read(structs)
        return lambda: found
    first = {
        name: jax.ShapeDtypeStruct(
            struct.shape, struct.dtype, sharding=on_first_replica(struct.sharding)
        )
        for name, struct in structs.items()
    }
    reads = any(struct.sharding.addressable_devices for struct in first.values())
    sources = read(first) if reads else {}
    for name, source in sources.items():
        wanted = structs[name]
        if (source.shape, source.dtype) != (wanted.shape, wanted.dtype):
            raise ValueError(f"{name} was read as {source.dtype}{list(source.shape)}")
    return lambda: {name: to_all(s, sources.pop(name, None)) for name, s in structs.items()}


def is_copied(struct: jax.ShapeDtypeStruct) -> bool:
    """Tells whether an array is on a mesh of several processes whose first axis copies it."""
    sharding = struct.sharding
    if not isinstance(sharding, NamedSharding) or sharding.is_fully_addressable:
        return False
    axis = sharding.mesh.axis_names[0]
    used = {
        name for part in sharding.spec for name in (part if isinstance(part, tuple) else (part,))
    }
    known = _is_key(struct) or struct.dtype.itemsize in CARRIERS
    return sharding.mesh.shape[axis] > 1 and axis not in used and known


def on_first_replica(sharding: NamedSharding) -> NamedSharding:
    """Returns the same layout on the devices of the first replica."""
    mesh = sharding.mesh
    first = Mesh(mesh.devices[:1], mesh.axis_names, axis_types=mesh.axis_types)
    return NamedSharding(first, sharding.spec)


def to_all(struct: jax.ShapeDtypeStruct, source: jax.Array | None) -> jax.Array:
    """Copies an array from the first replica to all; a collective.

    The bits of the first replica's and the zeros of all others are added up, as integers.

    Args:
        struct: with the wanted sharding.
        source: on the first replica; None on a process that has no device there.
    """
    wanted = struct.sharding
    assert isinstance(wanted, NamedSharding)
    mesh, axis = wanted.mesh, wanted.mesh.axis_names[0]
    bits = jax.eval_shape(to_bits, jax.ShapeDtypeStruct(struct.shape, struct.dtype))
    stacked = NamedSharding(mesh, PartitionSpec(axis, *wanted.spec))
    shape = (mesh.shape[axis], *bits.shape)
    held = {} if source is None else {s.device: s.data for s in source.addressable_shards}
    local = stacked.shard_shape(shape)
    pieces = [
        to_bits(held[device])[None]
        if device in held
        else jax.device_put(np.zeros(local, bits.dtype), device)
        for device in stacked.addressable_devices_indices_map(shape)
    ]
    parts = jax.make_array_from_single_device_arrays(shape, stacked, pieces)
    result = _added(wanted, struct.dtype)(parts)
    # On CPUs programs in flight together run in any order, and collectives that processes enter in
    # different orders deadlock. Elsewhere it bounds memory to one array.
    return jax.block_until_ready(result)


def to_bits(leaf: jax.Array) -> jax.Array:
    """Returns the bits of an array as unsigned integers."""
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint8)
    return jax.lax.bitcast_convert_type(leaf, CARRIERS[leaf.dtype.itemsize])


def from_bits(bits: jax.Array, dtype: Any) -> jax.Array:
    """Inverts `to_bits`."""
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(bits, impl=dtype._impl.name)
    if dtype == jnp.bool_:
        return bits.astype(jnp.bool_)
    return jax.lax.bitcast_convert_type(bits, dtype)


@functools.cache
def _added(sharding: NamedSharding, dtype: Any) -> Any:
    return jax.jit(
        lambda parts: from_bits(parts.sum(axis=0, dtype=parts.dtype), dtype),
        out_shardings=sharding,
    )


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
