"""Small train states for the checkpoint tests, with every kind of leaf and empty node."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from rae_dit.checkpoint.manager import Checkpoints
from rae_dit.training.state import TrainState

DATA = {"step": 0, "seed": 1, "fingerprint": "abc"}


def open_checkpoints(directory: Path, **changes: Any) -> Checkpoints:
    """Returns Checkpoints that save at every step and keep everything needed by the tests."""
    numbers = {"save_every": 1, "keep_last": 5, "keep_every": None} | changes
    return Checkpoints(directory, **numbers)


def make_state(step: int, width: int = 64) -> TrainState:
    """Returns a state that differs at every step: random float32, bfloat16, bool, key, None."""
    key = jax.random.key(step)
    params = {
        "block": {"kernel": jax.random.normal(key, (width, 16)), "scale": jnp.ones((8, 3))},
        "half": jax.random.normal(key, (24,), jnp.bfloat16),
        "layers": {0: {"flag": jnp.arange(8) % 3 == 0}, 1: {"count": jnp.arange(8)}},
    }
    trained = {"block": params["block"], "half": params["half"]}
    mask = {"block": {"kernel": True, "scale": False}, "half": False}
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.masked(optax.add_decayed_weights(0.1), mask),
        optax.masked(optax.trace(0.9), mask),
        optax.adamw(optax.constant_schedule(1e-3)),
    )
    _, opt_state = optimizer.update(trained, optimizer.init(trained), trained)
    ema = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) * 0.5, params)
    return TrainState(
        step=jnp.int32(step),
        params=params,
        ema=ema,
        opt_state=(opt_state, None, {}),
        key=jax.random.key(7),
        bad_steps=jnp.int32(3),
        last_good_step=jnp.int32(step),
    )


def like(state: TrainState, place: Callable[[Any], Any] = lambda leaf: leaf.sharding) -> TrainState:
    """Returns the state as ShapeDtypeStructs with the shardings that `place` gives."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place(leaf)), state
    )


def fully_sharded(shape: tuple[int, ...], names: tuple[str, ...]) -> Callable[[Any], NamedSharding]:
    """Returns a rule that splits the first axis over the last mesh axis wherever it divides."""
    count = int(np.prod(shape))
    mesh = jax.make_mesh(
        shape, names, axis_types=(AxisType.Auto,) * len(shape), devices=jax.devices()[:count]
    )

    def place(leaf: Any) -> NamedSharding:
        divides = leaf.ndim > 0 and leaf.shape[0] % shape[-1] == 0
        return NamedSharding(mesh, PartitionSpec(names[-1]) if divides else PartitionSpec())

    return place


def assert_same(left: Any, right: Any) -> None:
    """Structure, dtype and every bit."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def biggest_file(directory: Path) -> Path:
    """Returns the file that holds array chunks: the largest one of Orbax's OCDBT store."""
    files = [path for path in directory.rglob("d/*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip_byte(path: Path) -> None:
    """Inverts one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def tree_of(directory: Path) -> list[str]:
    """Returns every path below a directory: to show that nothing was renamed."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def save_steps(directory: Path, *steps: int) -> None:
    """Saves `make_state(step)` at each step."""
    with open_checkpoints(directory) as checkpoints:
        for step in steps:
            assert checkpoints.save(step, make_state(step), DATA | {"step": step})
