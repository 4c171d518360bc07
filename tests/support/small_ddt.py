"""A DiT^DH small enough for a test, and inputs for it."""

import jax
import jax.numpy as jnp
from flax import nnx

from rae_dit.models.ddt import DDT


def make_ddt(**changes):
    """Makes it, with keyword arguments changed."""
    sizes = {
        "input_size": 4,
        "in_channels": 6,
        "hidden_size": (16, 24),
        "depth": (2, 1),
        "num_heads": (2, 2),
        "num_classes": 10,
        "rngs": nnx.Rngs(0),
    }
    return DDT(**(sizes | changes))


def awake(ddt, scale=0.3):
    """The same model with its zero-initialised parts filled, so that every path matters."""
    graph, state = nnx.split(ddt)
    leaves, tree = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    leaves = [
        leaf + scale * jax.random.normal(key, leaf.shape) if leaf.std() == 0 else leaf
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return nnx.merge(graph, jax.tree.unflatten(tree, leaves))


X = jax.random.normal(jax.random.key(1), (3, 4, 4, 6))
T = jnp.array([0.1, 0.5, 0.9])
Y = jnp.array([0, 3, 10])
