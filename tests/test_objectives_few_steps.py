"""Few steps against MF-RAE's golden files: MeanFlow's loss and gradient, trajectories, jumps."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.golden_files import GOLDEN, arrays, relative_error

import rae_dit
from rae_dit.diffusion.flow import TIME_END, shift_time
from rae_dit.diffusion.guidance import VelocityField, conditional
from rae_dit.diffusion.mean_flow import order_times
from rae_dit.diffusion.solvers.euler import Euler
from rae_dit.diffusion.time_grid import time_grid
from rae_dit.objectives.mean_flow import interval_correction, mean_flow
from rae_dit.objectives.teacher import make_teacher
from rae_dit.objectives.trajectory import pairs_of_states, trajectory
from rae_dit.weights.mapping import export_tensors, parameters_of
from rae_dit.weights.official import ddt_entries

NAMES = ("fewstep_default", "fewstep_qknorm")


@functools.cache
def case(name):
    """Settings, arrays (NHWC), student and teacher of a golden file."""
    path = GOLDEN / "fewstep"
    golden = {
        key: np.moveaxis(value, -3, -1) if value.ndim > 3 else value
        for key, value in arrays(f"fewstep/{name}").items()
    }
    settings = json.loads((path / f"{name}.json").read_text())
    networks = (rae_dit.load_ddt(path / f"{name}{end}.pt") for end in ("", "_teacher"))
    return settings, golden, *networks


def flat(tree, prefix=""):
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree}
    return {k: v for name, sub in tree.items() for k, v in flat(sub, f"{prefix}{name}.").items()}


@pytest.mark.parametrize(("name", "power"), [(NAMES[0], 1.0), (NAMES[0], 0.5), (NAMES[1], 1.0)])
def test_mean_flow_is_the_reference_with_its_exact_derivative(name, power):
    """The reference weighs S^2 by 1 / (S^2 + c)^p: 2 S^(1 - 2p) times the gradient of S.

    So its p = 1 is twice ours, and its p = 0.5 is our p = 0 but for the size of a row.
    """
    settings, golden, student, _ = case(name)
    graph, state = nnx.split(student)
    objective = mean_flow(
        graph,
        graph,
        graph,  # of no RAE: inputs are given, nothing is encoded
        None,
        null_label=settings["null_label"],
        time_distribution="uniform",
        shift=settings["time_shift"],
        class_dropout=0.1,
        interval_every=1,  # the golden rows with r = t are not in our places
        adaptive_power=2 * power - 1,
        adaptive_constant=0.0,
    )

    @jax.jit
    def look(params, inputs):
        def mean_loss(params):
            error, metrics = objective.loss(params, {}, inputs)
            return jnp.mean(error), (error, metrics)

        grads, (error, metrics) = jax.grad(mean_loss, has_aux=True)(params)
        network = nnx.merge(graph, params)
        u = network(inputs["z"], inputs["t"], inputs["label"], inputs["r"])
        return grads, error, metrics, u, interval_correction(network, inputs, 1)

    abstract = parameters_of(student)
    for kind in ("mfd", "mft"):
        inputs = {
            "z": golden[f"{kind}_z_t"],
            "v": golden[f"{kind}_v"],
            "t": golden["loss_t"],
            "r": golden["loss_r"],
            "label": golden["loss_labels"],
            "ramp": np.ones(8, np.float32),
        }
        inputs, params = jax.tree.map(jnp.asarray, inputs), nnx.to_pure_dict(state)
        _, error, metrics, u, correction = look(params, inputs)
        size = u[0].size
        interval = (inputs["t"] - inputs["r"])[:, None, None, None]
        assert relative_error(u, golden[f"{kind}_u"]) < 1e-5
        exact = interval * golden[f"{kind}_dudt_exact"]
        assert relative_error(correction, exact) < 2e-5
        assert relative_error(inputs["v"] - correction, golden[f"{kind}_target_exact"]) < 2e-5
        np.testing.assert_allclose(error * size, golden[f"{kind}_square_exact"], rtol=1e-4)
        np.testing.assert_allclose(jnp.mean(metrics["error_interval"]), jnp.mean(error), rtol=1e-6)

        # Its losses are of its own target, whose derivative is a difference, 1 % off.
        differences = {"v": jnp.asarray(golden[f"{kind}_target"]), "ramp": jnp.zeros(8)}
        grads, error, *_ = look(params, inputs | differences)
        np.testing.assert_allclose(error * size, golden[f"{kind}_square"], rtol=1e-4)
        reference = golden[f"{kind}_p{power}_loss_ref"]  # the mean of all squared errors
        np.testing.assert_allclose(jnp.mean(error), reference, rtol=1e-4)
        exported = export_tensors(
            ddt_entries(student), {k: v for k, v in flat(grads).items() if k in abstract}
        )
        factor = 2 if power == 1.0 else 2 * size
        for key, norm in settings[f"{kind}_p{power}_gradient_norms"].items():
            found = factor * np.linalg.norm(exported[key])
            assert found == pytest.approx(norm, rel=1e-4), key
        recorded = f"{kind}_p{power}_gradient."
        for key in (key for key in golden if key.startswith(recorded)):
            mine = factor * exported[key.removeprefix(recorded)]
            assert relative_error(mine, golden[key]) < 1e-4, key


def test_derivative_in_each_argument():
    _, golden, student, _ = case(NAMES[1])
    z, t, r, label = (golden[name] for name in ("mft_z_t", "loss_t", "loss_r", "loss_labels"))

    @jax.jit
    def derivative(*tangents):
        return jax.jvp(lambda z, t, r: student(z, t, label, r), (z, t, r), tangents)[1]

    still, moving, at_rest = np.zeros_like(z), np.ones_like(t), np.zeros_like(t)
    tangents = {
        "z": (golden["mft_v"], at_rest, at_rest),
        "t": (still, moving, at_rest),
        "r": (still, at_rest, moving),
    }
    for name, tangent in tangents.items():
        assert relative_error(derivative(*tangent), golden[f"mft_partial_{name}"]) < 2e-5, name


def test_times_are_those_of_the_reference():
    settings, golden, *_ = case(NAMES[0])
    draws = shift_time(TIME_END * jnp.asarray(golden["time_draws"]), settings["time_shift"])
    t, r = order_times(draws[:, 0], draws[:, 1], jnp.asarray(golden["time_mask"] >= 0.75))
    np.testing.assert_allclose(t, golden["loss_t"], rtol=1e-6)
    np.testing.assert_allclose(r, golden["loss_r"], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_trajectory_and_its_pairs(name):
    settings, golden, student, network = case(name)
    graph, state = nnx.split(network)
    steps = settings["cmt"]["num_steps"]
    times = time_grid(steps, settings["time_shift"], grid="official")
    np.testing.assert_allclose(times, golden["cmt_teacher_times"], atol=1e-7)
    teacher = make_teacher(graph)
    labels = jnp.asarray(golden["cmt_labels"])

    @jax.jit
    def states_of(frozen, noise):
        return Euler().states(noise, times, VelocityField(conditional(teacher(frozen), labels)))

    states = states_of({"teacher": nnx.to_pure_dict(state)}, jnp.asarray(golden["cmt_noise"]))
    assert relative_error(states, golden["cmt_states"]) < 1e-5

    # The reference counts from the clean end: (i (i - 1) / 2 + j) B + b, i > j.
    order = [(i, j, b) for i in range(1, steps) for j in range(i) for b in range(len(labels))]
    i, j, b = np.array([order[index] for index in golden["cmt_indices"]]).T
    later, earlier, number = (jnp.asarray(index) for index in (steps - 1 - i, steps - 1 - j, b))
    found = pairs_of_states(states, times, later, earlier, number)
    assert relative_error(found["z"], golden["cmt_x"]) < 1e-5
    for key in ("t", "r"):
        np.testing.assert_allclose(found[key], golden[f"cmt_true_{key}"], atol=1e-7)
    assert relative_error(found["target"], golden["cmt_true_target"]) < 1e-4

    graph, state = nnx.split(student)
    objective = trajectory(
        graph,
        teacher,
        latent_shape=states.shape[2:],
        null_label=settings["null_label"],
        times=times,
        pairs=settings["cmt"]["num_pairs"] // 2,
        class_dropout=0.1,
    )
    inputs = found | {"label": jnp.asarray(golden["cmt_y"])}
    loss, _ = jax.jit(objective.loss)(nnx.to_pure_dict(state), {}, inputs)
    np.testing.assert_allclose(loss, golden["cmt_true_loss"], rtol=1e-4)


def test_one_to_four_jumps():
    _, golden, student, _ = case(NAMES[0])
    for steps in (1, 2, 3, 4):
        found = rae_dit.sample_latents(
            student,
            golden["sample_noise"],
            golden["sample_labels"],
            method="mean_flow",
            steps=steps,
        )
        assert relative_error(found, golden[f"sample_{steps}"]) < 1e-4, steps


def test_what_jumps_cannot_do_is_refused():
    _, golden, student, teacher = case(NAMES[0])
    sample = functools.partial(
        rae_dit.sample_latents,
        noise=golden["sample_noise"],
        labels=golden["sample_labels"],
        method="mean_flow",
        steps=1,
    )
    for change, message in (
        ({"cfg_scale": 2.0}, r"^cfg_scale: got 2.0; expected 1 with method 'mean_flow'"),
        ({"grid": "official"}, r"^grid: got 'official'; expected 'full'"),
        ({"steps": 0}, r"^steps: got 0; expected >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            sample(student, **change)
    with pytest.raises(ValueError, match=r"^method: got 'mean_flow'; expected 'euler' or another"):
        sample(teacher)
