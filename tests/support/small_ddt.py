"""A DiT^DH of a few thousand parameters, inputs for it, and one with no zeros in it."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rae_dit.architecture import Compute, DDTArchitecture
from rae_dit.models.ddt import DDT
from rae_dit.weights.official import export_ddt
from rae_dit.weights.tensor_file import save_tensors

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
    """Makes `SMALL` as it is initialized; changes are arguments of `DDT` or fields of its parts."""
    arguments = _arguments(**changes)
    return nnx.merge(_abstract(*arguments)[0], _initial(*arguments))


def awake_ddt(**changes) -> DDT:
    """The same network with no zeros in it, so that every path matters; nothing is compiled.

    Values follow from the parameters' order and shapes, hence not from `Compute`.
    """
    graph, shapes = _abstract(*_arguments(**changes))
    random = np.random.default_rng(5)

    def fill(path, leaf):
        value = 0.15 * random.standard_normal(leaf.shape)
        return jnp.asarray(value + ("norm" in jax.tree_util.keystr(path)), leaf.dtype)

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(fill, shapes))


def write_official_ddt(path: Path) -> None:
    """Writes a file of one that fits the latents of tests/golden/rae_dinov2_encoder."""
    architecture = DDTArchitecture(
        input_size=4,
        in_channels=48,
        hidden_size=(24, 48),
        depth=(1, 1),
        num_heads=(2, 2),
        num_classes=1000,
    )
    save_tensors(path, export_ddt(DDT(architecture, Compute(), rngs=nnx.Rngs(0))))


def velocity(ddt, x, t, y):
    """ddt(x, t, y), compiled once for all networks that differ in numbers alone."""
    return _call(*nnx.split(ddt), x, t, y)


@functools.partial(jax.jit, static_argnums=0)
def _call(graph, state, x, t, y):
    return nnx.merge(graph, state)(x, t, y)


def _arguments(*, train_constants=False, **changes):
    computes = {field.name for field in dataclasses.fields(Compute)}
    compute = Compute(**{name: changes.pop(name) for name in computes & set(changes)})
    return dataclasses.replace(SMALL, **changes), compute, train_constants


def _make(architecture, compute, train_constants):
    return DDT(architecture, compute, train_constants=train_constants, rngs=nnx.Rngs(0))


@functools.cache
def _abstract(*arguments):
    return nnx.split(nnx.eval_shape(lambda: _make(*arguments)))


@functools.cache
def _initial(*arguments):
    """One program: made eagerly, each operation of the initialization would be one."""
    return jax.jit(lambda: nnx.state(_make(*arguments)))()
