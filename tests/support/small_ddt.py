"""A DiT^DH of a few thousand parameters, inputs for it, and one with no zeros in it."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from rae_dit.architecture import Compute, DDTArchitecture
from rae_dit.models.ddt import DDT

X = jax.random.normal(jax.random.key(1), (3, 4, 4, 6))
T = jnp.array([0.1, 0.5, 0.9])
Y = jnp.array([0, 3, 10])


SMALL = DDTArchitecture(
    input_size=4,
    in_channels=6,
    hidden_size=(16, 24),
    depth=(2, 1),
    num_heads=(2, 2),
    num_classes=10,
)


def make_ddt(**changes) -> DDT:
    """Makes `SMALL`; changes are fields of `DDTArchitecture` or `Compute`."""
    computes = {field.name for field in dataclasses.fields(Compute)}
    compute = Compute(**{name: changes.pop(name) for name in computes & set(changes)})
    return DDT(dataclasses.replace(SMALL, **changes), compute, rngs=nnx.Rngs(0))


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
