"""Laws of the checksum and of the integrity record."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from support.training_states import fully_sharded, make_state

from rae_dit.checkpoint import integrity


def reference(words: np.ndarray) -> int:
    """The checksum in plain numpy: mix each uint32 word with its place, add modulo 2^32."""
    flat = words.astype(np.uint32).reshape(-1)
    with np.errstate(over="ignore"):
        mixed = flat ^ (np.arange(flat.size, dtype=np.uint32) * np.uint32(0x9E3779B1))
        mixed = (mixed ^ (mixed >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        mixed = mixed ^ (mixed >> np.uint32(16))
        return int(np.sum(mixed, dtype=np.uint32))


def test_equals_the_numpy_formula_for_every_dtype() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32) * 100
    key = jax.random.key(3)
    cases = {
        "float32": (jnp.asarray(values), values.view(np.uint32)),
        "bfloat16": (jnp.asarray(values, jnp.bfloat16), None),
        "float16": (jnp.asarray(values, jnp.float16), None),
        "int32": (jnp.asarray(values, jnp.int32), values.astype(np.int32).view(np.uint32)),
        "int8": (jnp.asarray(values, jnp.int8), None),
        "bool": (jnp.asarray(values > 0), values > 0),
        "key": (key, np.asarray(jax.random.key_data(key))),
        "scalar": (jnp.int32(-5), np.array(-5, np.int32).view(np.uint32)),
        "empty": (jnp.zeros((0, 3)), np.zeros((0,), np.uint32)),
    }
    sums = integrity.checksums({name: leaf for name, (leaf, _) in cases.items()})
    for name, (leaf, words) in cases.items():
        if words is None:
            carrier = {1: np.uint8, 2: np.uint16}[leaf.dtype.itemsize]
            words = np.asarray(leaf).view(carrier)
        assert sums[name] == reference(words), name


def test_float64_uses_both_halves() -> None:
    with jax.enable_x64(True):
        leaf = jnp.asarray([1.0, 2.0, 1.0 + 2.0**-40], jnp.float64)
        assert leaf.dtype == jnp.float64
        words = np.asarray(leaf).view(np.uint32)
        assert integrity.checksums({"x": leaf})["x"] == reference(words)


def test_depends_on_every_bit_and_on_place() -> None:
    bits = np.zeros((6, 4), np.uint32)
    seen = {integrity.checksums({"x": jnp.asarray(bits)})["x"]}
    for place in np.ndindex(bits.shape):
        changed = bits.copy()
        changed[place] = 1
        seen.add(integrity.checksums({"x": jnp.asarray(changed)})["x"])
    for bit in range(32):
        changed = bits.copy()
        changed[2, 3] = np.uint32(1 << bit)
        seen.add(integrity.checksums({"x": jnp.asarray(changed)})["x"])
    assert len(seen) == 1 + bits.size + 32 - 1  # bit 0 of [2, 3] occurs in both loops


def test_does_not_depend_on_sharding() -> None:
    named = integrity.named_leaves(make_state(1))
    alone = integrity.checksums(named)
    for shape, names in (((8,), ("fsdp",)), ((2, 4), ("replica", "fsdp")), ((1, 2), ("a", "b"))):
        place = fully_sharded(shape, names)
        spread = {name: jax.device_put(leaf, place(leaf)) for name, leaf in named.items()}
        assert any(not leaf.sharding.is_fully_replicated for leaf in spread.values())
        assert integrity.checksums(spread) == alone


def test_record_survives_json_and_its_seal_finds_a_change() -> None:
    leaves = integrity.leaf_records(integrity.named_leaves(make_state(2)))
    record = integrity.Record({"train": leaves, "ema": {}}, integrity.json_checksum({"step": 3}))
    stored = integrity.as_json(record.to_json())
    assert integrity.Record.from_json(stored) == record
    stored["trees"]["train"]["step"]["checksum"] += 1
    with pytest.raises(ValueError, match="seal"):
        integrity.Record.from_json(stored)
    with pytest.raises(ValueError, match="seal"):
        integrity.Record.from_json({})


def test_names_and_nesting() -> None:
    named = integrity.named_leaves(make_state(0))
    assert "params/layers/0/flag" in named
    assert "opt_state/0/3/0/mu/block/kernel" in named
    assert integrity.named_leaves(unflatten_dict(named, sep="/")).keys() == named.keys()
    with pytest.raises(ValueError, match="two leaves"):
        integrity.named_leaves({"a/b": 1, "a": {"b": 2}})


def test_differences_names_every_kind() -> None:
    stored = {
        "same": integrity.LeafRecord((2,), "float32", 0),
        "cast": integrity.LeafRecord((2,), "float32", 0),
        "wide": integrity.LeafRecord((2, 3), "float32", 0),
        "old": integrity.LeafRecord((2,), "float32", 0),
    }
    wanted = {
        "same": jax.ShapeDtypeStruct((2,), jnp.float32),
        "cast": jax.ShapeDtypeStruct((2,), jnp.bfloat16),
        "wide": jax.ShapeDtypeStruct((3, 2), jnp.float32),
        "new": jax.ShapeDtypeStruct((2,), jnp.float32),
    }
    assert integrity.differences(stored, wanted) == [
        "new: wanted, but not stored",
        "old: stored, but not wanted",
        "cast: stored as float32[2], wanted as bfloat16[2]",
        "wide: stored as float32[2, 3], wanted as float32[3, 2]",
    ]


def test_first_few_counts_the_rest() -> None:
    assert integrity.first_few(["a", "b"], 2) == "a; b"
    assert integrity.first_few(["a", "b", "c"], 1) == "a; and 2 more"
