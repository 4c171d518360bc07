"""A run small enough for a test: dit_dummy, smaller still, and what it needs."""

import jax
import numpy as np

from configs import dit_dummy
from rae_dit.config import Config, from_config_dict
from rae_dit.data import pipeline
from rae_dit.data.transforms import to_float
from rae_dit.setup import data
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.program import Program
from rae_dit.training.sharding import make_mesh, shard_batch
from rae_dit.training.state import TrainState


def small_config(**changes) -> Config:
    """Gives dit_dummy with dotted fields changed, such as {"optim.max_steps": 4}."""
    config = dit_dummy.get_config()
    config.update_from_flattened_dict(changes)
    return from_config_dict(config)


def batches(config: Config, count: int, start_step: int = 0) -> list[dict[str, np.ndarray]]:
    """The first batches of a run, with images as floats, which tests change."""
    stream = pipeline.train_batches(
        data.open_source(config, "train"),
        batch_size=config.data.batch_size,
        seed=config.seed,
        start_step=start_step,
        num_workers=0,
        flip=config.data.flip,
    )
    with stream:
        found = [next(stream) for _ in range(count)]
    return [batch | {"image": to_float(batch["image"])} for batch in found]


def take_steps(
    config: Config, count: int, *, devices: int = 1
) -> tuple[Program, TrainState, list[dict[str, float]]]:
    """Runs some steps on the first `devices` devices; returns metrics of each as floats."""
    mesh = make_mesh(config.sharding.fsdp, jax.devices()[:devices])
    program = make_program(config, mesh)
    state, frozen = program.create(), make_task(config).load_frozen(mesh)
    metrics = []
    for batch in batches(config, count):
        state, values = program.step(state, frozen, shard_batch(batch, mesh))
        metrics.append({name: float(value) for name, value in values.items()})
    return program, state, metrics


def host(tree):
    """A tree of arrays as numpy, keys included."""

    def to_numpy(leaf):
        typed_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if typed_key else leaf)

    return jax.tree.map(to_numpy, tree)


def assert_trees_equal(a, b):
    """Bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, host(a), host(b))
