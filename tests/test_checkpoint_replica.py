"""Arrays that one replica has read are those of all devices, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rae_dit.checkpoint import replica

VALUES = {
    "weights": jnp.asarray([[-0.0, jnp.nan, jnp.inf, 1e-42], [1.5, -2.25, 3.0, 0.0]], jnp.float32),
    "half": jnp.asarray([[-0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]], jnp.bfloat16),
    "counts": jnp.asarray([[1, -2, 2**31 - 1, 0], [-(2**31), 5, 6, 7]], jnp.int32),
    "flags": jnp.asarray([[True, False, True, True], [False, False, True, False]]),
    "key": jax.random.key(7),
}


def bits(leaf):
    return np.asarray(jax.random.key_data(leaf)) if leaf.ndim == 0 else np.asarray(leaf)


@pytest.mark.parametrize("fsdp", [1, 2])
def test_all_devices_get_the_bits_of_the_first_replica(fsdp, monkeypatch):
    grid = np.array(jax.devices()).reshape(-1, fsdp)[::-1]  # in an order of their own
    mesh = Mesh(grid, ("replica", "fsdp"))
    structs = {
        name: jax.ShapeDtypeStruct(
            value.shape,
            value.dtype,
            sharding=NamedSharding(mesh, PartitionSpec(*(None, "fsdp")[: value.ndim])),
        )
        for name, value in VALUES.items()
    }
    monkeypatch.setattr(replica, "is_copied", lambda struct: True)  # as over several processes
    asked = {}

    def read(wanted):
        asked.update(wanted)
        return {name: jax.device_put(VALUES[name], s.sharding) for name, s in wanted.items()}

    found = replica.read_by_first_replica(structs, read)()
    assert list(found) == list(VALUES)
    for name, value in VALUES.items():
        assert set(asked[name].sharding.device_set) == set(grid[0])
        assert found[name].sharding == structs[name].sharding
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(bits(found[name]), bits(value))
        if value.ndim:
            np.testing.assert_array_equal(np.signbit(found[name]), np.signbit(value))
            for shard in found[name].addressable_shards:
                np.testing.assert_array_equal(shard.data, value[shard.index])


def test_arrays_that_are_not_copied_are_read_as_they_are():
    mesh = Mesh(np.array(jax.devices()).reshape(-1, 2), ("replica", "fsdp"))
    sharding = NamedSharding(mesh, PartitionSpec())
    structs = {"a": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=sharding)}
    asked = []
    replica.read_by_first_replica(structs, lambda wanted: asked.append(wanted) or {})()
    assert asked == [structs]  # one process: it has all devices, and reads for them


def test_what_was_read_otherwise_is_refused(monkeypatch):
    mesh = Mesh(np.array(jax.devices()).reshape(-1, 2), ("replica", "fsdp"))
    sharding = NamedSharding(mesh, PartitionSpec())
    structs = {"a": jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=sharding)}
    monkeypatch.setattr(replica, "is_copied", lambda struct: True)
    with pytest.raises(ValueError, match=r"a was read as uint32\[2\]"):
        replica.read_by_first_replica(structs, lambda wanted: {"a": jnp.zeros(2, jnp.uint32)})
