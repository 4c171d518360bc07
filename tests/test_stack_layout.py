"""On a GPU a stack keeps its tokens in rows: the same numbers, and no batch is gathered for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from rae_dit.models import stack
from rae_dit.models.layers import Linear
from rae_dit.models.stack import Stack
from rae_dit.training.sharding import make_mesh

DEPTH = 3


class Block(nnx.Module):
    """A residual layer."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.linear = Linear(16, 16, axes=("embed", "mlp"), dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Adds what the layer makes of x."""
        return x + jnp.tanh(self.linear(x))


@pytest.fixture
def blocks() -> Stack:
    rngs = nnx.Rngs(0)
    return Stack(
        lambda rngs: Block(rngs=rngs), DEPTH, scan=False, remat="none", dtype=jnp.float32, rngs=rngs
    )


@pytest.fixture
def tokens() -> jax.Array:
    return jax.random.normal(jax.random.key(1), (8, 4, 16))


def pretend(monkeypatch: pytest.MonkeyPatch, devices: int | None) -> None:
    monkeypatch.setattr(stack, "target_devices", lambda: ("gpu", devices))


def constraints(function, *arguments) -> int:
    return str(jax.make_jaxpr(lambda *x: function(*x))(*arguments)).count("layout_constraint")


def test_every_block_of_a_gpu_asks_for_rows(
    blocks: Stack, tokens: jax.Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert constraints(blocks, tokens) == 0
    pretend(monkeypatch, 1)
    assert constraints(blocks, tokens) == DEPTH
    pretend(monkeypatch, None)  # how the batch is sharded is not known
    assert constraints(blocks, tokens) == 0


def test_values_gradients_and_tangents_stay(
    blocks: Stack, tokens: jax.Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    def results() -> list[jax.Array]:
        value, tangent = jax.jvp(lambda x: blocks(x), (tokens,), (jnp.cos(tokens),))
        gradient = jax.grad(lambda x: jnp.sum(blocks(x) ** 2))(tokens)
        return [value, tangent, gradient]

    plain = results()
    pretend(monkeypatch, 1)
    for found, expected in zip(results(), plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fsdp", [1, 8])
def test_several_devices_keep_their_parts_of_the_batch(
    blocks: Stack, tokens: jax.Array, monkeypatch: pytest.MonkeyPatch, fsdp: int
) -> None:
    mesh = make_mesh(fsdp)
    split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    graph, parameters = nnx.split(blocks)

    def gradient(parameters: nnx.State, x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: jnp.sum(nnx.merge(graph, parameters)(x) ** 2))(x)

    expected = gradient(parameters, tokens)
    pretend(monkeypatch, 8)
    with jax.set_mesh(mesh):
        program = jax.jit(gradient).lower(parameters, jax.device_put(tokens, split)).compile()
    assert "all-gather" not in program.as_text()
    found = program(
        jax.device_put(parameters, NamedSharding(mesh, PartitionSpec())),
        jax.device_put(tokens, split),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
