"""Laws of the adaptive integrator, and torchdiffeq's own results step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rae_dit.diffusion.guidance import VelocityField
from rae_dit.diffusion.solvers import dopri5
from rae_dit.diffusion.solvers.dopri5 import Dopri5
from rae_dit.diffusion.time_grid import time_grid

START = np.linspace(-1, 2, 6).reshape(3, 2)


def curved(x, t):
    """dx/dt with a known solution: x(t) = x(1) exp(sin 3t - sin 3)."""
    return 3 * jnp.cos(3 * t)[:, None] * x


def bent(wave):
    return lambda x, t: wave * jnp.cos(wave * t)[:, None] * x + jnp.sin(t)[:, None] * x**2


# From torchdiffeq 0.2.5 odeint(..., method="dopri5") in float64: (rtol, atol, wave) -> evaluations,
# and the state at the end for START's first row.
TORCHDIFFEQ = [
    (1e-3, 1e-6, 3.0, 26, [-5.192477744292501, -0.5304974096359282]),
    (1e-3, 1e-6, 20.0, 182, [-0.5953952086790445, -0.2030133655703538]),
    (1e-6, 1e-6, 3.0, 98, [-5.230532843867701, -0.5310135399480833]),
    (1e-10, 1e-10, 20.0, 2000, [-0.5936875972648151, -0.2023403578114412]),
]


@pytest.mark.parametrize(("rtol", "atol", "wave", "evaluations", "row"), TORCHDIFFEQ)
def test_every_step_is_torchdiffeq_s(rtol, atol, wave, evaluations, row):
    with jax.enable_x64():
        field = VelocityField(bent(wave))
        solution = Dopri5(rtol, atol).solve(jnp.asarray(START), 1.0, 0.00689, field)
        assert int(solution.evaluations) == evaluations
        np.testing.assert_allclose(solution.x[0], row, rtol=1e-12)


def test_the_error_follows_the_tolerance():
    with jax.enable_x64():
        for tolerance in (1e-4, 1e-6, 1e-8):
            solver = Dopri5(tolerance, tolerance)
            solution = solver.solve(jnp.ones((1, 1)), 1.0, 0.0, VelocityField(curved))
            error = abs(float(solution.x[0, 0]) - float(np.exp(-np.sin(3))))
            assert tolerance / 1000 < error < 10 * tolerance


def test_the_coefficients_are_a_method():
    np.testing.assert_allclose(dopri5.STAGES.sum(1), dopri5.NODES, atol=1e-14)
    fifth, nodes = dopri5.STAGES[6], dopri5.NODES
    for power in range(5):
        moment = 1 / (power + 1)
        assert fifth @ nodes**power == pytest.approx(moment, abs=1e-14)
        if power < 4:
            assert dopri5.FOURTH @ nodes**power == pytest.approx(moment, abs=1e-14)
            half = 0.5 ** (power + 1) * moment
            assert dopri5.MIDDLE @ nodes**power == pytest.approx(half, abs=1e-8)


def test_only_the_velocity_in_force_is_evaluated():
    asked = {"plain": [], "guided": []}

    def recording(name, value):
        def velocity(x, t):
            jax.debug.callback(lambda t: asked[name].append(float(t)), t[0])
            return jnp.full_like(x, value)

        return velocity

    field = VelocityField(recording("plain", 0.0), recording("guided", 1.0), (0.25, 0.75))
    solution = jax.jit(lambda x: Dopri5(1e-4, 1e-4).solve(x, 1.0, 0.0, field))(jnp.ones((2, 1)))
    jax.block_until_ready(solution)
    jax.effects_barrier()
    np.testing.assert_allclose(solution.x, 0.5, atol=0.05)  # no tolerance covers a jump
    assert len(asked["plain"]) + len(asked["guided"]) == int(solution.evaluations)
    assert asked["plain"]
    assert asked["guided"]
    assert all(0.25 <= t <= 0.75 for t in asked["guided"])
    assert not any(0.25 <= t <= 0.75 for t in asked["plain"])


def test_the_interval_is_inclusive():
    def moved(interval):
        field = VelocityField(
            lambda x, t: jnp.zeros_like(x), lambda x, t: jnp.ones_like(x), interval
        )
        solution = Dopri5(1e-3, 1e-3).solve(jnp.zeros((1, 1)), 0.5, 0.499, field)
        return float(solution.x[0, 0]) != 0.0

    assert moved((0.5, 0.5))
    assert not moved((0.501, 1.0))


def test_a_batch_shares_its_steps():
    """As torchdiffeq: the norm is over the whole state."""

    def count(x):
        solution = Dopri5(1e-4, 1e-4).solve(x, 1.0, 0.0, VelocityField(bent(20.0)))
        return int(solution.evaluations)

    easy, hard = jnp.zeros((1, 2)), jnp.ones((1, 2))
    assert count(easy) < count(jnp.concatenate([easy, hard])) <= count(hard)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_velocity_that_is_not_finite_ends_in_nan_and_not_in_a_loop(bad):
    field = VelocityField(lambda x, t: jnp.where(t[:, None] < 0.5, bad, x))
    solution = Dopri5(1e-3, 1e-6).solve(jnp.ones((1, 1)), 1.0, 0.0, field)
    assert np.isnan(np.asarray(solution.x)).all()
    assert int(solution.evaluations) < 1000


def test_a_flow_at_rest_stays():
    field = VelocityField(lambda x, t: 0 * x)
    solution = Dopri5(1e-3, 1e-6).solve(jnp.ones((1, 1)), 1.0, 0.0, field)
    np.testing.assert_array_equal(solution.x, 1.0)


def test_the_end_is_read_off_a_polynomial_of_degree_4():
    """dx/dt = 4 t^3: exact also in the middle of a step that goes past the end."""
    with jax.enable_x64():
        for end in time_grid(7, 2.0, grid="official")[1:]:
            field = VelocityField(lambda x, t: jnp.broadcast_to(4 * t[:, None] ** 3, x.shape))
            solution = Dopri5(1e-3, 1e-6).solve(jnp.ones((1, 1)), 1.0, float(end), field)
            np.testing.assert_allclose(solution.x, end**4, atol=1e-9)


# By torchdiffeq's documented options safety = 0.9, ifactor = 10, dfactor = 0.2 and order 5:
# 0.9 r^(-1/5), at most 10; at least 0.2, or 1 for an accepted step.
FACTORS = [
    (0.0, 10.0),
    (1e-10, 10.0),
    (1e-5, 9.0),
    (1 / 32, 1.8),
    (0.9**5, 1.0),
    (0.99, 1.0),
    (32.0, 0.45),
    (1e5, 0.2),
    (jnp.inf, 0.2),
]


@pytest.mark.parametrize(("ratio", "factor"), FACTORS)
def test_the_size_changes_by_torchdiffeq_s_factors(ratio, factor):
    size = dopri5.next_size(jnp.float32(-0.01), jnp.float32(ratio))
    assert float(size) == pytest.approx(-0.01 * factor, rel=1e-5)


def test_steps_without_error_grow_tenfold_each():
    """At rest the first step is 1e-6: after k steps, t = 1 - 1e-6 (10^k - 1) / 9; 7 go past 0."""
    seen = []

    def resting(x, t):
        jax.debug.callback(lambda t: seen.append(float(t)), t[0])
        return jnp.zeros_like(x)

    with jax.enable_x64():
        solution = Dopri5(1e-3, 1e-6).solve(jnp.ones((1, 1)), 1.0, 0.0, VelocityField(resting))
        jax.block_until_ready(solution)
        jax.effects_barrier()
    assert int(solution.evaluations) == 2 + 6 * 7
    ends = [1 - 1e-6 * (10**k - 1) / 9 for k in range(1, 8)]
    for end in ends:
        assert min(abs(t - end) for t in seen) < 1e-12
    assert min(seen) == pytest.approx(ends[-1], abs=1e-12)
