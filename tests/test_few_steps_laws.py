"""Laws of few-step generation, without a reference, mostly on a network of two numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.small_ddt import X, Y, awake_ddt

from rae_dit.diffusion.guidance import VelocityField
from rae_dit.diffusion.mean_flow import average_velocity, jumps, time_derivative
from rae_dit.diffusion.solvers.euler import Euler
from rae_dit.diffusion.time_grid import time_grid
from rae_dit.objectives.mean_flow import adaptive, mean_flow
from rae_dit.objectives.teacher import make_teacher
from rae_dit.objectives.trajectory import pairs_of_states, trajectory

MEAN, DEVIATION = 0.7, 0.3  # of Gaussian data


def moments(t):
    """Mean and deviation of the path's points at a time."""
    return (1 - t) * MEAN, jnp.sqrt((1 - t) ** 2 * DEVIATION**2 + t**2)


def flow_map(z, t, r):
    (mean_t, deviation_t), (mean_r, deviation_r) = moments(t), moments(r)
    return mean_r + deviation_r / deviation_t * (z - mean_t)


def average(z, t, r):
    """The average velocity of the Gaussian flow; r < t."""
    return (z - flow_map(z, t, r)) / (t - r)


def test_gaussian_average_velocity_satisfies_the_identity():
    with jax.enable_x64(True):
        z, t, r = jnp.linspace(-2, 2, 5), jnp.linspace(0.3, 1, 5), jnp.linspace(0.0, 0.6, 5)
        mean, deviation = moments(t)
        slope = (t - (1 - t) * DEVIATION**2) / deviation**2  # of log s_t
        velocity = -MEAN + slope * (z - mean)
        derivative = time_derivative(average, z, t, r, velocity)
        np.testing.assert_allclose(
            average(z, t, r), velocity - (t - r) * derivative, rtol=0, atol=1e-12
        )
        # Central differences along the velocity approach it with the square of their step.
        distance = []
        for step in (1e-2, 1e-3):
            ends = (average(z + s * velocity, t + s, r) for s in (step, -step))
            difference = jnp.subtract(*ends) / (2 * step)
            distance.append(jnp.abs(difference - derivative).max())
        assert np.log10(distance[0] / distance[1]) == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_jumps_of_a_gaussian_are_its_flow_map(steps):
    noise = jax.random.normal(jax.random.key(0), (5, 3))
    found = jumps(
        lambda z, t, r: average(z, t[:, None], r[:, None]),
        noise,
        time_grid(steps, 1.0, grid="full"),
    )
    np.testing.assert_allclose(found, MEAN + DEVIATION * noise, atol=1e-5)


class Toy(nnx.Module):
    """u = a z t + b sin(z (t + 2 r)), with labels ignored."""

    null_label = 10

    def __init__(self):
        self.a, self.b = nnx.Param(jnp.float32(0.8)), nnx.Param(jnp.float32(0.3))

    def __call__(self, z, t, label, r=None):
        t = t[:, None, None, None]
        r = t if r is None else r[:, None, None, None]
        return self.a[...] * z * t + self.b[...] * jnp.sin(z * (t + 2 * r))

    velocity = __call__

    def stacks(self):
        return {}


class Images(nnx.Module):
    """An autoencoder whose latents are the images."""

    def encode(self, image):
        return image


IMAGES = nnx.graphdef(Images())
TOY, PARAMS = nnx.split(Toy())
PARAMS = nnx.to_pure_dict(PARAMS)


def objective(teacher=None, **changes):
    settings = {
        "null_label": 10,
        "time_distribution": "uniform",
        "shift": 2.0,
        "class_dropout": 0.0,
    }
    return mean_flow(TOY, TOY, IMAGES, teacher, **(settings | changes))


def drawn(made, rows=16, **more):
    keys = jax.random.split(jax.random.key(3), 2)
    batch = {"image": jax.random.normal(keys[0], (rows, 2, 2, 3)), "label": jnp.arange(rows) % 10}
    return made.sample_inputs({"rae": {}, "teacher": PARAMS}, batch | more, keys[1])


def mean_of(loss):
    return lambda params: jnp.mean(loss(params))


def test_gradient_is_that_of_a_constant_target():
    made = objective(adaptive_power=0.0)
    inputs = drawn(made)
    grads = jax.grad(mean_of(lambda params: made.loss(params, {}, inputs)[0]))(PARAMS)

    def target_of(params):
        network = nnx.merge(TOY, params)
        z, t, r, v = (inputs[name] for name in ("z", "t", "r", "v"))
        derivative = time_derivative(lambda z, t, r: network(z, t, None, r), z, t, r, v)
        return v - (t - r)[:, None, None, None] * derivative

    def squared(params, target):
        u = nnx.merge(TOY, params)(inputs["z"], inputs["t"], None, inputs["r"])
        return jnp.mean(jnp.square(u - target))

    constant = jax.grad(squared)(PARAMS, target_of(PARAMS))
    for name in PARAMS:
        np.testing.assert_allclose(grads[name], constant[name], rtol=1e-5)
    through = jax.grad(lambda params: squared(params, target_of(params)))(PARAMS)
    assert abs(through["b"] - constant["b"]) > 0.1 * abs(constant["b"])


def test_weight_of_each_row():
    error = jnp.array([0.2, 3.0, 50.0])

    def gradient(scale, power, constant):
        return jax.vjp(lambda e: adaptive(scale * e, power=power, constant=constant), error)

    for scale in (1.0, 10.0):
        np.testing.assert_allclose(gradient(scale, 1.0, 0.0)[1](jnp.ones(3))[0], 1 / error, 1e-6)
    for power in (0.0, 0.5, 1.0):
        value, pull = gradient(1.0, power, 1e-3)
        np.testing.assert_allclose(value, error, rtol=1e-6)
        np.testing.assert_allclose(pull(jnp.ones(3))[0], (error + 1e-3) ** -power, rtol=1e-6)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_every_device_and_micro_batch_has_its_share_of_intervals(micro_batches):
    inputs = drawn(objective(micro_batches=micro_batches), rows=32)
    is_interval = np.asarray(inputs["r"] < inputs["t"])
    devices, every = 4, 4
    shards = is_interval.reshape(devices, -1)
    assert shards.sum(1).tolist() == [32 // devices // every] * devices
    for part in range(micro_batches):  # rows i, i + parts, ... as the step cuts them
        rows = is_interval[part::micro_batches].reshape(-1, every)
        assert rows[:, 0].all()
        assert not rows[:, 1:].any()


def test_nothing_moves_where_student_and_teacher_agree_and_r_is_t():
    made = objective(make_teacher(TOY))
    inputs = drawn(made)
    inputs |= {"r": inputs["t"]}
    grads = jax.grad(mean_of(lambda params: made.loss(params, {}, inputs)[0]))(PARAMS)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_first_loss_where_r_is_t_is_zero():
    teacher, student = awake_ddt(), awake_ddt(interval_embedding=True)
    for layer in (student.interval_embedding.fc2.kernel, student.interval_embedding.fc2.bias):
        layer[...] = jnp.zeros_like(layer[...])
    student = nnx.to_pure_dict(nnx.state(student))
    frozen = nnx.to_pure_dict(nnx.state(teacher))
    student = frozen | {"interval_embedding": student["interval_embedding"]}
    graph = nnx.graphdef(awake_ddt(interval_embedding=True))
    made = mean_flow(
        graph,
        graph,
        IMAGES,
        make_teacher(nnx.graphdef(teacher)),
        null_label=10,
        time_distribution="uniform",
        shift=2.0,
        class_dropout=0.0,
    )
    batch = {"image": jnp.concatenate([X, X[:1]]), "label": jnp.concatenate([Y, Y[:1]])}

    @jax.jit
    def metrics_of(student, frozen):
        inputs = made.sample_inputs({"rae": {}, "teacher": frozen}, batch, jax.random.key(0))
        return made.loss(student, {}, inputs)[1]

    metrics = metrics_of(student, frozen)
    assert float(jnp.mean(metrics["error_instant"])) < 1e-12
    assert float(jnp.mean(metrics["error_interval"])) > 1e-4
    assert float(jnp.mean(metrics["correction"])) > 0.01


def test_metrics_are_means_over_one_kind_of_rows():
    made = objective()
    inputs = drawn(made)
    error, metrics = made.loss(PARAMS, {}, inputs)
    is_interval = np.asarray(inputs["r"] < inputs["t"])
    for name, rows in (("error_interval", is_interval), ("error_instant", ~is_interval)):
        assert float(jnp.mean(metrics[name])) == pytest.approx(float(np.mean(error[rows])))


def test_warm_up_fades_the_correction_in():
    made = objective(tangent_warmup_steps=10)
    for step, ramp in ((0, 0.0), (5, 0.5), (20, 1.0)):
        inputs = drawn(made, step=jnp.full(16, float(step)))
        np.testing.assert_array_equal(inputs["ramp"], np.full(16, ramp))


def test_labels_are_dropped_once_for_teacher_and_student():
    """A guided teacher gives rows without label its unlabeled velocity, whatever its scale."""

    class Labeled(Toy):
        def velocity(self, x, t, label):
            return x + jnp.asarray(label, jnp.float32)[:, None, None, None]

    teacher = make_teacher(nnx.graphdef(Labeled()), scale=3.0, interval=(0.2, 1.0))
    made = objective(teacher, class_dropout=0.5)
    inputs = drawn(made, rows=32)
    labels, t = np.asarray(inputs["label"]), np.asarray(inputs["t"])
    assert 4 < (labels == 10).sum() < 28
    scale = np.where(t >= 0.2, 3.0, 1.0)
    expected = inputs["z"] + (10 + scale * (labels - 10))[:, None, None, None]
    np.testing.assert_allclose(inputs["v"], expected, rtol=1e-5, atol=1e-5)


def test_targets_of_a_trajectory_telescope():
    times = time_grid(6, 2.0, grid="official")
    noise = jax.random.normal(jax.random.key(1), (2, 2, 2, 3))
    network = nnx.merge(TOY, PARAMS)
    states = Euler().states(noise, times, VelocityField(lambda x, t: network(x, t, None)))
    steps = np.arange(5)
    found = pairs_of_states(states, times, steps, steps + 1, np.zeros(5, int))
    total = sum((times[k] - times[k + 1]) * found["target"][k] for k in steps)
    np.testing.assert_allclose(total, noise[0] - states[-1, 0], rtol=1e-5, atol=1e-6)
    end = Euler().integrate(noise, times, VelocityField(lambda x, t: network(x, t, None)))
    np.testing.assert_array_equal(states[-1], end)
    # A velocity that is constant along the path gives one target for all pairs.
    straight = Euler().states(noise, times, VelocityField(lambda x, t: jnp.full_like(x, 0.7)))
    later, earlier = np.triu_indices(6, k=1)
    found = pairs_of_states(straight, times, later, earlier, np.zeros(15, int))
    np.testing.assert_allclose(found["target"], 0.7, rtol=1e-4)


def test_pairs_are_drawn_without_repetition_from_labels_alone():
    class Still(Toy):
        def velocity(self, x, t, label):
            return jnp.zeros_like(x) + jnp.asarray(label, jnp.float32)[:, None, None, None]

    times = time_grid(6, 2.0, grid="official")
    made = trajectory(
        TOY,
        make_teacher(nnx.graphdef(Still())),
        latent_shape=(2, 2, 3),
        null_label=10,
        times=times,
        pairs=15,
        class_dropout=0.0,
    )
    labels = jnp.array([3] * 15 + [7] * 15)
    inputs = made.sample_inputs({"teacher": PARAMS}, {"label": labels}, jax.random.key(2))
    np.testing.assert_array_equal(inputs["label"], labels)
    target = average_velocity(inputs["z"], inputs["z"] - 1.0, inputs["t"], inputs["t"] - 1.0)
    np.testing.assert_allclose(target, 1.0, rtol=1e-5)
    np.testing.assert_allclose(inputs["target"][:, 0, 0, 0], labels, rtol=1e-4)
    for part in (slice(0, 15), slice(15, 30)):
        pairs = {
            (float(t), float(r)) for t, r in zip(inputs["t"][part], inputs["r"][part], strict=True)
        }
        assert len(pairs) == 15
        assert all(t > r for t, r in pairs)
