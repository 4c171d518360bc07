"""Laws of the samplers: orders as slopes, grids, and guidance confined to an interval."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rae_dit.diffusion.guidance import VelocityField
from rae_dit.diffusion.solvers.euler import Euler
from rae_dit.diffusion.solvers.heun import Heun
from rae_dit.diffusion.time_grid import time_grid


def curved(x, t):
    """dx/dt with a known solution: x(t) = x(1) exp(sin 3t - sin 3)."""
    return 3 * jnp.cos(3 * t)[:, None] * x


def error(solver, steps):
    x = solver.integrate(jnp.ones((1, 1)), np.linspace(1, 0, steps + 1), VelocityField(curved))
    return abs(float(x[0, 0]) - float(np.exp(-np.sin(3))))


@pytest.mark.parametrize(("solver", "order"), [(Euler(), 1), (Heun(), 2)])
def test_order_of_convergence(solver, order):
    with jax.enable_x64():
        steps = np.array([64, 128, 256])
        errors = [error(solver, int(n)) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("solver", [Euler(), Heun()])
def test_a_straight_flow_is_integrated_exactly(solver):
    x = jnp.array([[1.0, -2.0]])
    noise = jnp.array([[0.5, 3.0]])
    straight = VelocityField(lambda _x, _t: noise - x)
    out = solver.integrate(noise, time_grid(3, 2.0, grid="full"), straight)
    np.testing.assert_allclose(out, x, atol=1e-6)


def test_official_grid_has_n_points_and_stops_short_of_zero():
    times = time_grid(50, 6.9282, grid="official")
    assert len(times) == 50
    assert times[0] == 1.0
    assert times[-1] == pytest.approx(0.00689, abs=1e-5)
    assert np.all(np.diff(times) < 0)


def test_full_grid_has_n_updates_and_ends_at_zero():
    times = time_grid(50, 6.9282, grid="full")
    assert (len(times), times[0], times[-1]) == (51, 1.0, 0.0)


@pytest.mark.parametrize(
    ("steps", "grid", "message"),
    [
        (1, "official", "^steps: got 1; expected >= 2 points"),
        (0, "full", "^steps: got 0; expected >= 1 update"),
        (5, "edm", "^grid: got 'edm'; expected 'official' or 'full'$"),
    ],
)
def test_impossible_grids_are_refused(steps, grid, message):
    with pytest.raises(ValueError, match=message):
        time_grid(steps, 1.0, grid=grid)


TIMES = time_grid(11, 1.0, grid="full")


def constant(value):
    return lambda x, t: jnp.full_like(x, value)


def test_guidance_acts_inside_its_interval_only():
    start = jnp.zeros((2, 1))
    out = Euler().integrate(start, TIMES, VelocityField(constant(0.0), constant(1.0), (0.2, 0.8)))
    inside = [t for t in TIMES[:-1] if 0.2 <= t <= 0.8]
    np.testing.assert_allclose(out, np.full((2, 1), -len(inside) / 11), rtol=1e-5)


def test_interval_is_inclusive():
    times = np.array([1.0, 0.5, 0.0])
    out = Euler().integrate(
        jnp.zeros((1, 1)), times, VelocityField(constant(0.0), constant(1.0), (0.5, 0.5))
    )
    assert float(out[0, 0]) == -0.5


def test_guided_model_is_not_evaluated_outside_the_interval():
    """Counts evaluations while running, not while tracing."""
    calls = {"plain": 0, "guided": 0}

    def counting(name):
        def velocity(x, t):
            jax.debug.callback(lambda: calls.update({name: calls[name] + 1}))
            return x

        return velocity

    out = Euler().integrate(
        jnp.ones((1, 1)), TIMES, VelocityField(counting("plain"), counting("guided"), (0.3, 0.6))
    )
    jax.block_until_ready(out)
    jax.effects_barrier()
    inside = sum(0.3 <= t <= 0.6 for t in TIMES[:-1])
    assert calls == {"plain": 11 - inside, "guided": inside}


def test_heun_asks_the_velocity_in_force_at_the_other_end():
    times = np.array([1.0, 0.5])
    out = Heun().integrate(
        jnp.zeros((1, 1)), times, VelocityField(constant(0.0), constant(1.0), (0.0, 0.7))
    )
    assert float(out[0, 0]) == pytest.approx(-0.25)


def test_one_scan_body_per_run_of_equal_guidance():
    jaxpr = jax.make_jaxpr(
        lambda x: Euler().integrate(
            x, TIMES, VelocityField(constant(0.0), constant(1.0), (0.2, 0.8))
        )
    )(jnp.zeros((1, 1)))
    assert [equation.primitive.name for equation in jaxpr.eqns].count("scan") == 3
