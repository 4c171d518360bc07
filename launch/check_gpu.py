"""What only a GPU computes in its own way, beside plain JAX in float32: one line each.

    python launch/check_gpu.py

For a new kind of GPU, or a new JAX: the tests run on CPUs, where none of these paths is taken.
Ends with status 1 if one is further off than its rounding explains. On other devices the same
functions run without their kernels.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from rae_dit.kernels.rounding import round_both_ways, round_both_ways_gpu
from rae_dit.models import float8
from rae_dit.models.attention import SelfAttention
from rae_dit.training.sharding import make_mesh

HALF = 2e-2  # relative, of values and gradients in bfloat16


def main() -> None:
    """Prints every check."""
    gpu = jax.default_backend() == "gpu"
    checks: dict[str, tuple[Callable[[], float], float]] = {
        "attention, 256 tokens": (lambda: attention_error(256), HALF),
        "attention, 257 tokens, padded": (lambda: attention_error(257), HALF),
        "attention, 785 tokens, padded": (lambda: attention_error(785), HALF),
        "rounding kernel, bits": (lambda: rounding_error(interpret=not gpu), 0.0),
        "float8 layer": (float8_error, 0.06),
    }
    failed = False
    for name, (measure, bound) in checks.items():
        with jax.set_mesh(make_mesh(1, jax.devices()[:1])):  # kernels are for a known mesh
            found = measure()
        good = found <= bound  # not of NaN
        failed |= not good
        print(f"{name:32s} {found:.2e} (at most {bound:.0e}) {'' if good else 'WRONG'}", flush=True)
    sys.exit(int(failed))


def attention_error(tokens: int) -> float:
    """Returns how far values and gradients in bfloat16 are from XLA's attention in float32."""
    x, slope = jax.random.normal(jax.random.key(0), (2, 2, tokens, 128))

    def value_and_gradients(dtype: type, implementation: str) -> list[Array]:
        layer = SelfAttention(
            128, 2, implementation=implementation, dtype=dtype, rngs=nnx.Rngs(params=0)
        )
        graph, parameters, rest = nnx.split(layer, nnx.Param, ...)

        def mix(parameters: nnx.State, x: Array) -> Array:
            return nnx.merge(graph, parameters, rest)(x.astype(dtype)).astype(jnp.float32)

        return with_gradients(mix, (parameters, x), slope)

    with jax.default_matmul_precision("float32"):
        exact = value_and_gradients(jnp.float32, "xla")
    return distance(value_and_gradients(jnp.bfloat16, "auto"), exact)


def rounding_error(*, interpret: bool) -> float:
    """Returns the share of numbers that the kernel rounds otherwise; 1 if sums are off."""
    x = jax.random.normal(jax.random.key(0), (512, 384), jnp.bfloat16)
    factors = jax.random.uniform(jax.random.key(1), (2, 512), minval=1.0, maxval=50.0)
    *kernel, sums = round_both_ways_gpu(x, *factors, interpret=interpret)
    *plain, plain_sums = jax.jit(round_both_ways)(x, *factors)
    if not jnp.allclose(sums, plain_sums, rtol=1e-4, atol=1e-3):
        return 1.0
    pairs = zip(kernel, plain, strict=True)
    return max(float(jnp.mean(a.astype("f4") != b.astype("f4"))) for a, b in pairs)


def float8_error() -> float:
    """Returns how far a layer and its gradients are from a product in float32."""
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = (512, 384), (384, 256), (256,), (512, 256)
    *arguments, slope = (jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True))

    def plain(x: Array, kernel: Array, bias: Array) -> Array:
        return x @ kernel + bias

    with jax.default_matmul_precision("float32"):
        exact = with_gradients(plain, tuple(arguments), slope)
    half = tuple(x.astype(jnp.bfloat16) for x in arguments)
    return distance(with_gradients(float8.linear, half, slope.astype(jnp.bfloat16)), exact)


def with_gradients(
    function: Callable[..., Array], arguments: tuple[Any, ...], slope: Array
) -> list[Array]:
    """Returns a function's value and the gradients of all arguments, compiled."""

    @jax.jit
    def compute(arguments: tuple[Any, ...], slope: Array) -> tuple[Array, Any]:
        value, pull_back = jax.vjp(function, *arguments)
        return value, pull_back(slope)

    return jax.tree.leaves(compute(arguments, slope))


def distance(found: list[Array], exact: list[Array]) -> float:
    """Returns the largest relative distance of arrays; NaN if one holds it."""
    errors = [
        jnp.linalg.norm(x.astype(jnp.float32) - y) / jnp.linalg.norm(y)
        for x, y in zip(found, exact, strict=True)
    ]
    return float(jnp.max(jnp.stack(errors)))


if __name__ == "__main__":
    main()
