"""Placement of host arrays, which every process has read, on the devices of a mesh."""

import zlib
from typing import Any

import numpy as np

from rae_dit.config import ConfigError


def place(tree: Any, shardings: Any) -> Any:
    """Puts the leaves of a tree on the devices of all processes; no array travels between them.

    `jax.device_put` of a host array would gather it from every process onto every device, to
    compare: processes x its size. Here each process hands its own devices their parts, and only a
    checksum of each array is compared.

    Args:
        tree: of host arrays, which every process has, or of arrays on devices of all processes.
        shardings: of each leaf, a tree of the same structure; or one of them all.

    Returns:
        The tree of arrays in these shardings.

    Raises:
        ConfigError: a host array is not the same on every process; raised on all of them.
    """
    import jax

    if isinstance(shardings, jax.sharding.Sharding):
        one = shardings
        shardings = jax.tree.map(lambda leaf: one, tree)
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in pairs]
    leaves = [leaf if _is_global(leaf) else np.asarray(leaf) for _, leaf in pairs]
    on_host = {
        name: leaf for name, leaf in zip(names, leaves, strict=True) if isinstance(leaf, np.ndarray)
    }
    require_equal(on_host)
    placed = [
        _put(leaf, sharding)
        for leaf, sharding in zip(leaves, jax.tree.leaves(shardings), strict=True)
    ]
    return jax.tree.unflatten(structure, placed)


def require_equal(named: dict[str, np.ndarray]) -> None:
    """Checks that every process holds the same arrays; only a uint32 of each is gathered.

    Raises:
        ConfigError: one differs; raised on every process.
    """
    from jax.experimental import multihost_utils

    if not named:
        return
    sums = np.array([_checksum(leaf) for leaf in named.values()], np.uint32)
    table = np.asarray(multihost_utils.process_allgather(sums))
    different = np.argwhere(table != table[0])
    if len(different):
        process, column = different[0].tolist()
        raise ConfigError(
            f"weights: got another {[*named][column]!r} on process {process} than on process 0; "
            "expected the same files on every host"
        )


def _put(leaf: Any, sharding: Any) -> Any:
    import jax

    if not isinstance(leaf, np.ndarray):
        return jax.device_put(leaf, sharding)
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])


def _is_global(leaf: Any) -> bool:
    import jax

    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


def _checksum(leaf: np.ndarray) -> int:
    """Returns the CRC-32 of the bytes of an array."""
    return zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
