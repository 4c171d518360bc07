"""Integrity record of a checkpoint: shape, dtype and checksum of every leaf, sealed by a CRC.

Orbax restores a flipped byte and casts to another dtype silently. So each step
is saved with a record of its leaves, and a restore compares the arrays that came back with it.
The record also tells two faults apart that look the same in Orbax: files that are damaged (the
record disagrees with the arrays) and a model that was changed (the record disagrees with what the
caller asks for, while the files are fine).
"""

import functools
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

FORMAT = 1  # raised when the meaning of the record changes
_SPREAD = 0x9E3779B1  # 2^32 / golden ratio, odd: spreads neighboring positions over 32 bits


@dataclass(frozen=True)
class LeafRecord:
    """One stored array.

    Attributes:
        shape: its shape.
        dtype: name of its dtype, such as 'float32' or 'key<fry>'.
        checksum: uint32 of `checksum`, as a Python int.
    """

    shape: tuple[int, ...]
    dtype: str
    checksum: int


@dataclass(frozen=True)
class Record:
    """The `integrity` item of a checkpoint.

    Attributes:
        trees: item name ('train', 'ema') -> leaf name ('params/block/kernel') -> its record.
        data: CRC-32 of the canonical JSON of the data position.
    """

    trees: dict[str, dict[str, LeafRecord]]
    data: int

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON values, with a CRC-32 over all of it as its seal."""
        body = {
            "format": FORMAT,
            "trees": {
                item: {name: asdict(leaf) for name, leaf in leaves.items()}
                for item, leaves in self.trees.items()
            },
            "data": self.data,
        }
        return {**body, "seal": json_checksum(body)}

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "Record":
        """Reads what `to_json` wrote.

        Raises:
            ValueError: the seal is missing or broken, or the format is not `FORMAT`.
        """
        body = {key: value for key, value in stored.items() if key != "seal"}
        if "seal" not in stored or stored["seal"] != json_checksum(body):
            raise ValueError("the seal of the integrity record is broken")
        if body["format"] != FORMAT:
            raise ValueError(
                f"the integrity record has format {body['format']}, this program reads {FORMAT}"
            )
        trees = {
            item: {
                name: LeafRecord(tuple(leaf["shape"]), leaf["dtype"], leaf["checksum"])
                for name, leaf in leaves.items()
            }
            for item, leaves in body["trees"].items()
        }
        return Record(trees, body["data"])


def as_json(value: Any) -> Any:
    """Returns `value` as JSON gives it back (tuples are lists, keys are strings).

    Raises:
        TypeError: `value` holds something that JSON cannot say.
    """
    return json.loads(json.dumps(value))


def json_checksum(value: Any) -> int:
    """Returns the CRC-32 of the canonical JSON text of JSON values."""
    return zlib.crc32(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a pytree under names such as 'opt_state/0/mu/kernel', in tree order.

    Raises:
        ValueError: two leaves have the same name (a dict key holds a '/').
    """
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree)
    named: dict[str, Any] = {}
    for path, leaf in pairs:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in named:
            raise ValueError(f"two leaves of the state are called '{name}'; avoid '/' in names")
        named[name] = leaf
    return named


def _bits(leaf: jax.Array) -> jax.Array:
    """Returns the bits of any array as uint32, one per element (two per 8-byte element)."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag], axis=-1)
    carriers = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}
    carrier = carriers[leaf.dtype.itemsize]
    return jax.lax.bitcast_convert_type(leaf, carrier).astype(jnp.uint32)


def checksum(leaf: jax.Array) -> jax.Array:
    """Returns the checksum of one array; call it under `jax.jit`.

    Each element's bits are joined with its place in the whole array, scrambled by a one-to-one
    32-bit mix, and summed modulo 2^32. Integer addition is exact in any order, so the result does
    not depend on sharding or process count. One changed element is always found, because the mix
    is one-to-one; several changed elements escape with a chance of 2^-32.

    Args:
        leaf: array of any shape, any dtype of 1, 2, 4 or 8 bytes, or typed PRNG keys.

    Returns:
        uint32 [].

    Source: mixing steps of MurmurHash3's 32-bit finalizer (Austin Appleby, public domain).
    """
    bits = _bits(leaf)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        stride = math.prod(bits.shape[axis + 1 :]) % 2**32
        along = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        place += along * jnp.uint32(stride)
    mixed = bits ^ (place * jnp.uint32(_SPREAD))
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
    mixed = mixed ^ (mixed >> 16)
    return jnp.sum(mixed, dtype=jnp.uint32)


@functools.cache
def _jitted_checksum(result_sharding: NamedSharding | None) -> Any:
    return jax.jit(checksum, out_shardings=result_sharding)


def checksums(named: Mapping[str, jax.Array]) -> dict[str, int]:
    """Computes the checksum of every leaf on its devices; only uint32 scalars come to the host.

    Leaves on a mesh are collectives: every process must call this with the same leaves in the same
    order. One small program per leaf, because leaves of equal shape then share one compilation.
    """
    pending = {}
    for name, leaf in named.items():
        placed = leaf.sharding
        replicated = (
            NamedSharding(placed.mesh, PartitionSpec())
            if isinstance(placed, NamedSharding)
            else None
        )
        pending[name] = _jitted_checksum(replicated)(leaf)
        if jax.process_count() > 1 or jax.default_backend() == "cpu":
            # On CPUs programs in flight together run in any order, and processes that take their
            # collectives in different orders deadlock; so do devices of one process, which share
            # its threads.
            jax.block_until_ready(pending[name])
    return {name: int(value) for name, value in jax.device_get(pending).items()}


def tree_checksum(tree: Any) -> int:
    """Returns one checksum of all leaves of a tree and their names; a collective as `checksums`."""
    return json_checksum(checksums(named_leaves(tree)))


def leaf_records(named: Mapping[str, jax.Array]) -> dict[str, LeafRecord]:
    """Describes every leaf: shape, dtype and checksum."""
    sums = checksums(named)
    return {
        name: LeafRecord(tuple(leaf.shape), str(leaf.dtype), sums[name])
        for name, leaf in named.items()
    }


def differences(stored: Mapping[str, LeafRecord], wanted: Mapping[str, Any]) -> list[str]:
    """Compares stored leaves with the wanted tree, without reading any array.

    Args:
        stored: leaf name -> record.
        wanted: leaf name -> anything with `shape` and `dtype`.

    Returns:
        One line per leaf that is missing, left over, or of another shape or dtype.
    """
    lines = [f"{name}: wanted, but not stored" for name in wanted if name not in stored]
    lines += [f"{name}: stored, but not wanted" for name in stored if name not in wanted]
    for name, struct in wanted.items():
        if name in stored:
            ours = f"{struct.dtype}{list(struct.shape)}"
            theirs = f"{stored[name].dtype}{list(stored[name].shape)}"
            if ours != theirs:
                lines.append(f"{name}: stored as {theirs}, wanted as {ours}")
    return lines


def first_few(lines: Iterable[str], limit: int = 5) -> str:
    """Joins lines for an error message and counts the ones left out."""
    everything = list(lines)
    text = "; ".join(everything[:limit])
    return text if len(everything) <= limit else f"{text}; and {len(everything) - limit} more"
