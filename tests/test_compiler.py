"""Compiler options are chosen when a program is first called; a sampling loop casts no weights."""

import subprocess
import sys

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rae_dit import compiler
from rae_dit.architecture import Compute, DDTArchitecture
from rae_dit.diffusion.sampler import SamplerOptions
from rae_dit.models.ddt import DDT
from rae_dit.sampling import velocity
from rae_dit.sampling.latents import integrate, sample_latents


def test_the_platform_is_asked_for_at_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict | None] = []

    def jit(function, **arguments):
        asked.append(arguments)
        return function

    monkeypatch.setattr(jax, "jit", jit)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    function = compiler.jit(static_argnums=0)(lambda factor, x: factor * x)
    assert asked == []
    assert (function(2, 3), function(2, 4)) == (6, 8)
    assert asked == [{"compiler_options": compiler.OPTIONS["gpu"], "static_argnums": 0}]


def test_what_was_compiled_ahead_is_not_traced_again() -> None:
    traced: list[int] = []

    @compiler.jit(static_argnames="factor")
    def scaled(x: jax.Array, *, factor: int) -> jax.Array:
        traced.append(factor)
        return factor * x

    program = scaled.lower(jnp.ones(2), factor=3).compile()
    np.testing.assert_array_equal(program(jnp.ones(2)), scaled(jnp.ones(2), factor=3))
    assert traced == [3]


def test_importing_compiled_programs_does_not_start_jax() -> None:
    code = (
        "import rae_dit.sampling.latents, rae_dit.sampling.codec\n"
        "from jax._src import xla_bridge\n"
        "raise SystemExit(xla_bridge.backends_are_initialized())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_options_are_ones_that_xla_knows() -> None:
    for options in compiler.OPTIONS.values():
        assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2


@pytest.fixture(scope="module")
def half() -> DDT:
    architecture = DDTArchitecture(
        input_size=2,
        in_channels=4,
        hidden_size=(8, 16),
        depth=(2, 1),
        num_heads=(1, 1),
        num_classes=3,
    )
    return DDT(architecture, Compute(scan_layers=False, dtype="bfloat16"), rngs=nnx.Rngs(0))


def casts_of_matrices(jaxpr: jax.extend.core.Jaxpr, inside: bool = False) -> int:
    """How many stacked matrices are cast to bfloat16 inside loops."""
    found = 0
    for equation in jaxpr.eqns:
        if inside and equation.primitive.name == "convert_element_type":
            (source,) = equation.invars
            stacked = getattr(source.aval, "ndim", 0) == 3 and source.aval.dtype == jnp.float32
            weights = stacked and source.aval.shape[0] in (1, 2) and source.aval.shape[1] >= 8
            found += weights and equation.params["new_dtype"] == jnp.bfloat16
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            found += casts_of_matrices(inner, inside or equation.primitive.name == "scan")
    return found


def test_a_sampling_loop_casts_no_matrix(half: DDT) -> None:
    graph, parameters = nnx.split(half)

    def sample(parameters: nnx.State) -> jax.Array:
        return integrate.__wrapped__(
            velocity.Network(graph, parameters),
            None,
            jnp.zeros((2, 2, 2, 4)),
            jnp.zeros(2, jnp.int32),
            None,
            1.0,
            options=SamplerOptions(
                method="euler",
                steps=3,
                grid="official",
                shift=1.0,
                internal_scale=1.0,
                internal_interval=(0.0, 1.0),
                guidance="none",
                interval=(0.0, 1.0),
                rtol=1e-3,
                atol=1e-6,
                diffusion_norm=1.0,
                last_step="mean",
                last_step_size=0.04,
            ),
        )

    assert casts_of_matrices(jax.make_jaxpr(sample)(parameters).jaxpr) == 0


def test_and_samples_as_the_model_itself_does(half: DDT) -> None:
    noise = jax.random.normal(jax.random.key(0), (2, 2, 2, 4))
    labels = jnp.array([0, 2])
    sampled = sample_latents(half, noise, labels, steps=1, grid="full", shift=1.0)
    velocity = half(noise, jnp.ones(2), labels)
    np.testing.assert_allclose(sampled, noise - velocity, atol=1e-6)


def test_a_sweep_over_scales_is_traced_twice_without_and_with_guidance(
    half: DDT, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[str] = []
    guided_velocity = velocity.guided_velocity

    def recording(kind, *arguments, **keywords):
        traced.append(kind)
        return guided_velocity(kind, *arguments, **keywords)

    monkeypatch.setattr(velocity, "guided_velocity", recording)
    noise, labels = jax.random.normal(jax.random.key(0), (2, 2, 2, 4)), jnp.array([0, 2])
    made = [
        sample_latents(half, noise, labels, steps=3, shift=1.25, cfg_scale=scale)
        for scale in (1.0, 1.5, 2.0, 1, 3)
    ]
    assert traced == ["none", "cfg"]
    np.testing.assert_array_equal(made[0], made[3])
