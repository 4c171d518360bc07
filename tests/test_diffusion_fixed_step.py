"""Laws of the samplers: orders as slopes, grids, and guidance confined to an interval."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rae_dit.diffusion.solvers import fixed_step


def curved(x, t):
    """dx/dt with a known solution: x(t) = x(1) exp(sin 3t - sin 3)."""
    return 3 * jnp.cos(3 * t)[:, None] * x


def error(solve, steps):
    x = solve(curved, jnp.ones((1, 1)), np.linspace(1, 0, steps + 1))
    return abs(float(x[0, 0]) - float(np.exp(-np.sin(3))))


@pytest.mark.parametrize(("solve", "order"), [(fixed_step.euler, 1), (fixed_step.heun, 2)])
def test_order_of_convergence(solve, order):
    with jax.enable_x64():
        steps = np.array([64, 128, 256])
        errors = [error(solve, int(n)) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("solve", [fixed_step.euler, fixed_step.heun])
def test_a_straight_flow_is_integrated_exactly(solve):
    x = jnp.array([[1.0, -2.0]])
    noise = jnp.array([[0.5, 3.0]])
    out = solve(lambda _x, _t: noise - x, noise, fixed_step.times(3, 2.0, grid="full"))
    np.testing.assert_allclose(out, x, atol=1e-6)


def test_official_grid_has_n_points_and_stops_short_of_zero():
    times = fixed_step.times(50, 6.9282, grid="official")
    assert len(times) == 50
    assert times[0] == 1.0
    assert times[-1] == pytest.approx(0.00689, abs=1e-5)
    assert np.all(np.diff(times) < 0)


def test_full_grid_has_n_updates_and_ends_at_zero():
    times = fixed_step.times(50, 6.9282, grid="full")
    assert (len(times), times[0], times[-1]) == (51, 1.0, 0.0)


@pytest.mark.parametrize(
    ("steps", "grid", "message"),
    [(1, "official", "2 points"), (0, "full", "at least 1"), (5, "edm", "'official' or 'full'")],
)
def test_impossible_grids_are_refused(steps, grid, message):
    with pytest.raises(ValueError, match=message):
        fixed_step.times(steps, 1.0, grid=grid)


TIMES = fixed_step.times(11, 1.0, grid="full")


def constant(value):
    return lambda x, t: jnp.full_like(x, value)


def test_guidance_acts_inside_its_interval_only():
    start = jnp.zeros((2, 1))
    out = fixed_step.integrate(
        fixed_step.EULER,
        start,
        TIMES,
        plain=constant(0.0),
        guided=constant(1.0),
        interval=(0.2, 0.8),
    )
    inside = [t for t in TIMES[:-1] if 0.2 <= t <= 0.8]
    np.testing.assert_allclose(out, np.full((2, 1), -len(inside) / 11), rtol=1e-5)


def test_interval_is_inclusive():
    times = np.array([1.0, 0.5, 0.0])
    out = fixed_step.integrate(
        fixed_step.EULER,
        jnp.zeros((1, 1)),
        times,
        plain=constant(0.0),
        guided=constant(1.0),
        interval=(0.5, 0.5),
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

    out = fixed_step.integrate(
        fixed_step.EULER,
        jnp.ones((1, 1)),
        TIMES,
        plain=counting("plain"),
        guided=counting("guided"),
        interval=(0.3, 0.6),
    )
    jax.block_until_ready(out)
    jax.effects_barrier()
    inside = sum(0.3 <= t <= 0.6 for t in TIMES[:-1])
    assert calls == {"plain": 11 - inside, "guided": inside}


def test_heun_asks_the_velocity_in_force_at_the_other_end():
    times = np.array([1.0, 0.5])
    out = fixed_step.integrate(
        fixed_step.HEUN,
        jnp.zeros((1, 1)),
        times,
        plain=constant(0.0),
        guided=constant(1.0),
        interval=(0.0, 0.7),
    )
    assert float(out[0, 0]) == pytest.approx(-0.25)


def test_one_scan_body_per_run_of_equal_guidance():
    jaxpr = jax.make_jaxpr(
        lambda x: fixed_step.integrate(
            fixed_step.EULER,
            x,
            TIMES,
            plain=constant(0.0),
            guided=constant(1.0),
            interval=(0.2, 0.8),
        )
    )(jnp.zeros((1, 1)))
    assert [equation.primitive.name for equation in jaxpr.eqns].count("scan") == 3
