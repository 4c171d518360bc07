"""Every diffusion case of the golden files, through the public interface."""

import dataclasses
import functools
import json
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from support.golden_files import GOLDEN, arrays, channels_last, relative_error
from support.small_run import small_config

import rae_dit
from rae_dit.diffusion import flow, guidance
from rae_dit.diffusion.guidance import VelocityField
from rae_dit.diffusion.solvers.euler import Euler
from rae_dit.diffusion.time_grid import time_grid
from rae_dit.models.ddt import DDT
from rae_dit.sampling.latents import run_sampler
from rae_dit.setup.sampling import sampler_options

NAMES = sorted(path.stem for path in GOLDEN.glob("ddt_*.npz"))
TIGHT = {"rtol": 1e-6, "atol": 1e-6}
SAMPLES = {
    "euler10": {"steps": 10},
    "euler10_cfg2": {"steps": 10, "cfg_scale": 2.0},
    "euler50": {"steps": 50},
    "euler50_cfg2": {"steps": 50, "cfg_scale": 2.0},
    "heun10": {"steps": 10, "method": "heun"},
    "dopri5_10": {"steps": 10, "method": "dopri5", **TIGHT},
}
LIMITS = {"euler50": 1e-3, "euler50_cfg2": 1e-3}  # 1e-4 for all others
INPUTS = {"x", "t", "y", "guided_labels", "noise", "data"}


@functools.cache
def settings(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def results(name: str) -> Iterator[tuple[str, Array]]:
    """Our value for every case of one file, NHWC."""
    golden, ddt = arrays(name), rae_dit.load_ddt(GOLDEN / f"{name}.pt")
    x, noise, data = (jnp.asarray(channels_last(golden[key])) for key in ("x", "noise", "data"))
    t, labels = jnp.asarray(golden["t"]), jnp.asarray(golden["guided_labels"])
    velocity = jax.jit(ddt.__call__)
    yield "velocity", velocity(x, t, golden["y"])

    yield "velocity_cfg2", classifier_free(ddt, labels, 2.0)(x, t)
    inside = ((t >= 0.2) & (t <= 0.8))[:, None, None, None]
    confined = jnp.where(inside, classifier_free(ddt, labels, 3.0)(x, t), velocity(x, t, labels))
    yield "velocity_cfg3_interval_0.2_0.8", confined
    if "weak" in settings(name) and (GOLDEN / f"{name}_weak.pt").exists():
        weak = rae_dit.load_ddt(GOLDEN / f"{name}_weak.pt")
        guided = guidance.autoguidance(ddt, weak, labels, scale=1.5)
        yield "velocity_autoguidance1.5", jax.jit(guided)(x, t)

    x_t = flow.interpolate(data, noise, t)
    yield "x_t", x_t
    yield "loss_per_sample", flow.velocity_loss(velocity(x_t, t, labels), data, noise)

    for case, arguments in SAMPLES.items():
        shift = settings(name)["time_shift"]
        yield case, rae_dit.sample_latents(ddt, noise, labels, shift=shift, **arguments)


def classifier_free(ddt: DDT, labels: Array, scale: float) -> guidance.Velocity:
    guided = guidance.classifier_free(ddt, labels, null_label=ddt.null_label, scale=scale)
    return jax.jit(guided)


def test_every_golden_case() -> None:
    worst: dict[str, tuple[float, str]] = {}
    for name in NAMES:
        golden = arrays(name)
        seen = set()
        for case, value in results(name):
            expected = golden[case]
            if expected.ndim == 4:
                expected = channels_last(expected)
            error = relative_error(value, expected)
            print(f"{name:16}{case:34}{error:.1e}")
            assert error < LIMITS.get(case, 1e-4), f"{name} {case}"
            worst[case] = max(worst.get(case, (0.0, "")), (error, name))
            seen.add(case)
        assert seen == golden.keys() - INPUTS
    print("worst of each case:", {case: f"{error:.1e}" for case, (error, _) in worst.items()})
    assert worst.keys() >= {*SAMPLES, "velocity_autoguidance1.5"}


def test_shift_defaults_to_that_of_the_latent_s_size() -> None:
    golden, ddt = arrays("ddt_default"), rae_dit.load_ddt(GOLDEN / "ddt_default.pt")
    noise, labels = channels_last(golden["noise"]), golden["guided_labels"]
    by_default = rae_dit.sample_latents(ddt, noise, labels, steps=3)
    told = rae_dit.sample_latents(ddt, noise, labels, steps=3, shift=(4 * 4 * 24 / 4096) ** 0.5)
    np.testing.assert_array_equal(by_default, told)


def test_numpy_and_jax_arguments_give_the_same() -> None:
    golden, ddt = arrays("ddt_default"), rae_dit.load_ddt(GOLDEN / "ddt_default.pt")
    noise, labels = channels_last(golden["noise"]), golden["guided_labels"]
    assert isinstance(noise, np.ndarray)
    from_numpy = rae_dit.sample_latents(ddt, noise, labels, steps=3)
    from_jax = rae_dit.sample_latents(ddt, jnp.asarray(noise), jnp.asarray(labels), steps=3)
    np.testing.assert_array_equal(from_numpy, from_jax)


def test_every_device_samples_its_part_of_what_is_split_over_them() -> None:
    golden, ddt = arrays("ddt_default"), rae_dit.load_ddt(GOLDEN / "ddt_default.pt")
    noise = np.resize(channels_last(golden["noise"]), (8, 4, 4, 24))
    labels = np.resize(golden["guided_labels"], 8)
    expected = rae_dit.sample_latents(ddt, noise, labels, steps=4, cfg_scale=1.5)
    mesh = Mesh(jax.devices()[:4], ("batch",))
    graph, parameters = nnx.split(ddt)
    ddt = nnx.merge(graph, jax.device_put(parameters, NamedSharding(mesh, P())))
    split = NamedSharding(mesh, P("batch"))
    noise, labels = jax.device_put((noise, labels), split)
    found = rae_dit.sample_latents(ddt, noise, labels, steps=4, cfg_scale=1.5)
    assert found.sharding.is_equivalent_to(split, found.ndim)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dopri5_with_guidance_in_an_interval_is_the_limit_of_small_steps() -> None:
    golden, ddt = arrays("ddt_default"), rae_dit.load_ddt(GOLDEN / "ddt_default.pt")
    arguments = (ddt, channels_last(golden["noise"]), golden["guided_labels"])
    guided = {"shift": 1.0, "cfg_scale": 3.0, "cfg_interval": (0.2, 0.8), "grid": "full"}
    adaptive = rae_dit.sample_latents(*arguments, steps=1, method="dopri5", **TIGHT, **guided)
    fine = rae_dit.sample_latents(*arguments, steps=500, method="heun", **guided)
    assert relative_error(adaptive, fine) < 2e-3


def test_a_guide_means_autoguidance() -> None:
    golden, ddt = arrays("ddt_default"), rae_dit.load_ddt(GOLDEN / "ddt_default.pt")
    weak = rae_dit.load_ddt(GOLDEN / "ddt_default_weak.pt")
    noise = jnp.asarray(channels_last(golden["noise"]))
    labels = jnp.asarray(golden["guided_labels"])
    x = rae_dit.sample_latents(
        ddt, noise, labels, steps=3, shift=2.5, cfg_scale=1.5, guide=weak, grid="full"
    )
    velocity = guidance.autoguidance(ddt, weak, labels, scale=1.5)
    expected = Euler().integrate(noise, time_grid(3, 2.5, grid="full"), VelocityField(velocity))
    assert relative_error(x, expected) < 1e-5


def test_impossible_arguments_are_refused() -> None:
    ddt = rae_dit.load_ddt(GOLDEN / "ddt_default_weak.pt")
    noise, labels = np.zeros((2, 4, 4, 24)), np.zeros(2, int)
    with pytest.raises(
        ValueError,
        match=r"^method: got 'rk4'; expected 'euler', 'heun', 'dopri5', 'sde' or 'mean_flow'$",
    ):
        rae_dit.sample_latents(ddt, noise, labels, steps=3, method="rk4")
    with pytest.raises(ValueError, match=r"^noise: got shape \(2, 24, 4, 4\); expected \(2, 4,"):
        rae_dit.sample_latents(ddt, noise.transpose(0, 3, 1, 2), labels, steps=3)
    with pytest.raises(ValueError, match=r"^steps: got 1; expected >= 2 points for grid"):
        rae_dit.sample_latents(ddt, noise, labels, steps=1)
    with pytest.raises(ValueError, match=r"^keys: got None; expected one PRNG key a sample for"):
        rae_dit.sample_latents(ddt, noise, labels, steps=3, method="sde")


def test_guidance_and_guide_must_agree() -> None:
    ddt = rae_dit.load_ddt(GOLDEN / "ddt_default_weak.pt")
    noise, labels = jnp.zeros((2, 4, 4, 24)), jnp.zeros(2, jnp.int32)
    options = sampler_options(small_config(**{"flow.shift": 1.0}))
    with pytest.raises(ValueError, match=r"^guide: got a model with guidance 'cfg'; expected a mo"):
        run_sampler(ddt, noise, labels, options, cfg_scale=2.0, guide=ddt)
    options = dataclasses.replace(options, guidance="autoguidance")
    with pytest.raises(ValueError, match=r"^guide: got None with guidance 'autoguidance'; expect"):
        run_sampler(ddt, noise, labels, options, cfg_scale=2.0)
