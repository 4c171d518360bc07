"""Laws of Euler-Maruyama: a Gaussian's marginals, the flow as its limit, guidance, last step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rae_dit.diffusion.guidance import VelocityField
from rae_dit.diffusion.solvers.euler import Euler
from rae_dit.diffusion.solvers.sde import EulerMaruyama, drift
from rae_dit.diffusion.time_grid import time_grid

MEAN, DEVIATION = 1.5, 0.4  # of the data, a Gaussian; x_t is one too
PARTICLES = 50_000


def variance_at(t):
    return (1 - t) ** 2 * DEVIATION**2 + t**2


def velocity(x, t):
    """E[e - x | x_t] for that data."""
    t = t[:, None]
    apart = (x - (1 - t) * MEAN) / variance_at(t)
    return t * apart - (MEAN + (1 - t) * DEVIATION**2 * apart)


def draw(step):
    return jax.random.normal(jax.random.fold_in(jax.random.key(1), step), (PARTICLES, 1))


def solve(steps, *, norm=1.0, last_step="none", size=0.04, shift=1.0, **guidance):
    solver = EulerMaruyama(norm, last_step, size)
    noise = jax.random.normal(jax.random.key(0), (PARTICLES, 1))
    field = VelocityField(velocity, **guidance)
    return solver.integrate(noise, solver.times(steps, shift, grid="official"), field, draw)


def test_drift_adds_the_score_that_the_density_has():
    """Against the gradient of the log density, by automatic differentiation."""
    x, t, norm = jnp.array([[0.3]]), jnp.array(0.6), 2.0

    def log_density(x):
        return -((x - (1 - t) * MEAN) ** 2) / (2 * variance_at(t))

    score = jax.grad(lambda x: log_density(x)[0, 0])(x)
    expected = velocity(x, t[None]) - norm * t * score
    np.testing.assert_allclose(drift(velocity, x, t, norm), expected, rtol=1e-5)


@pytest.mark.parametrize("norm", [0.5, 2.0])
def test_the_data_s_distribution_comes_out(norm):
    x = solve(200, norm=norm)
    assert float(jnp.mean(x)) == pytest.approx(MEAN, abs=0.01)
    assert float(jnp.std(x)) == pytest.approx(DEVIATION, abs=0.01)


def test_marginals_on_the_way_are_those_of_the_path():
    times = np.linspace(1, 0.5, 150)
    noise = jax.random.normal(jax.random.key(0), (PARTICLES, 1))
    x = EulerMaruyama(1.0, "none", 0.04).integrate(noise, times, VelocityField(velocity), draw)
    assert float(jnp.mean(x)) == pytest.approx(0.5 * MEAN, abs=0.01)
    assert float(jnp.std(x)) == pytest.approx(variance_at(0.5) ** 0.5, abs=0.01)


def test_noise_is_really_added():
    """Two draws of noise from one start differ; by Euler's method they would not."""
    solver, start = EulerMaruyama(1.0, "mean", 0.04), jnp.zeros((PARTICLES, 1))
    times = solver.times(20, 1.0, grid="official")
    x = solver.integrate(start, times, VelocityField(velocity), draw)
    assert float(jnp.std(x)) > 0.1


def test_without_noise_it_is_euler_s_method_for_the_flow():
    times = EulerMaruyama(0.0, "euler", 0.04).times(12, 2.0, grid="official")
    noise = jax.random.normal(jax.random.key(0), (PARTICLES, 1))
    expected = Euler().integrate(noise, np.append(times, 0.0), VelocityField(velocity))
    found = solve(12, norm=0.0, last_step="euler", shift=2.0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("last_step", "norm"), [("mean", 1.0), ("euler", 0.0)])
@pytest.mark.parametrize("interval", [(0.0, 0.05), (0.5, 1.0)])
def test_the_last_step_goes_to_zero_without_noise(last_step, norm, interval):
    """With the drift of the SDE or of the flow, and guided if its time is in the interval."""
    guidance = {"guided": lambda x, t: 2 * velocity(x, t), "interval": interval}
    times = EulerMaruyama(1.0, last_step, 0.04).times(12, 1.0, grid="official")
    noise = jax.random.normal(jax.random.key(0), (PARTICLES, 1))
    field = VelocityField(velocity, **guidance)
    inner = EulerMaruyama(1.0, "none", 0.04).integrate(noise, times, field, draw)
    t = jnp.asarray(times[-1], jnp.float32)
    in_force = guidance["guided"] if interval[0] == 0 else velocity
    expected = inner - t * drift(in_force, inner, t, norm)
    np.testing.assert_allclose(solve(12, last_step=last_step, **guidance), expected, atol=1e-5)


def test_an_unknown_last_step_is_refused():
    with pytest.raises(ValueError, match=r"^last_step: got 'tweedie'; expected 'mean', 'euler'"):
        solve(3, last_step="tweedie")


@pytest.mark.parametrize("shift", [1.0, 6.93])
def test_times_end_where_the_last_step_begins(shift):
    times = EulerMaruyama(1.0, "mean", 0.04).times(50, shift, grid="full")  # it has its own
    assert (len(times), times[0]) == (50, 1.0)
    assert times[-1] == pytest.approx(0.04)
    assert np.all(np.diff(times) < 0)
    assert times[25] == pytest.approx(time_grid(2, shift, grid="full")[1], abs=0.03)
    none = EulerMaruyama(1.0, "none", 0.04).times(50, shift, grid="full")
    np.testing.assert_array_equal(none, time_grid(50, shift, grid="official"))


def test_guidance_acts_inside_its_interval_and_costs_nothing_outside():
    calls = {"plain": 0, "guided": 0}

    def counting(name, value):
        def velocity(x, t):
            jax.debug.callback(lambda: calls.update({name: calls[name] + 1}))
            return jnp.full_like(x, value)

        return velocity

    solver = EulerMaruyama(0.0, "euler", 0.1)
    times = solver.times(11, 1.0, grid="official")
    field = VelocityField(counting("plain", 0.0), counting("guided", 1.0), (0.3, 0.6))
    x = solver.integrate(jnp.zeros((2, 1)), times, field, lambda step: jnp.zeros((2, 1)))
    jax.block_until_ready(x)
    jax.effects_barrier()
    inside = [-d for t, d in zip(times, np.diff(times), strict=False) if 0.3 <= t <= 0.6]
    assert calls == {"plain": 11 - len(inside), "guided": len(inside)}
    np.testing.assert_allclose(x, np.full((2, 1), -sum(inside)), rtol=1e-5)


def test_each_update_draws_noise_of_its_own():
    seen = []

    def record(step):
        jax.debug.callback(lambda step: seen.append(int(step)), step)
        return jnp.zeros((2, 1))

    field = VelocityField(lambda x, t: x, lambda x, t: 2 * x, (0.3, 0.6))
    solver, times = EulerMaruyama(1.0, "mean", 0.04), np.linspace(1, 0.1, 6)
    out = solver.integrate(jnp.zeros((2, 1)), times, field, record)
    jax.block_until_ready(out)
    jax.effects_barrier()
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_noise_has_the_variance_of_the_time_where_the_step_begins():
    """By hand, (6) where the drift is 0: x' = sqrt(2 w d) z = sqrt(2 * (3 * .8) * .3) z = 1.2 z."""
    z = jnp.array([[1.0], [-2.0]])
    field = VelocityField(lambda x, t: jnp.zeros_like(x))
    solver, times = EulerMaruyama(3.0, "none", 0.04), np.array([0.8, 0.5])
    x = solver.integrate(jnp.zeros((2, 1)), times, field, lambda step: z)
    np.testing.assert_allclose(x, 1.2 * z, rtol=1e-6)


def test_a_stochastic_solver_needs_noise():
    with pytest.raises(ValueError, match=r"^keys: got None; expected one PRNG key a sample for"):
        EulerMaruyama(1.0, "none", 0.04).integrate(
            jnp.zeros((2, 1)), np.array([0.8, 0.5]), VelocityField(velocity)
        )
