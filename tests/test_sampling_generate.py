"""Laws of generation: an image depends on seed, number and label; guidance wastes no evaluation."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.golden_files import relative_error
from support.sampling_run import GUIDE, GUIDED, sampling_config

import rae_dit
from rae_dit.config import ConfigError
from rae_dit.data.transforms import to_uint8
from rae_dit.diffusion import guidance
from rae_dit.diffusion.guidance import VelocityField
from rae_dit.diffusion.solvers.euler import Euler
from rae_dit.diffusion.solvers.heun import Heun
from rae_dit.diffusion.time_grid import time_grid
from rae_dit.models.ddt import DDT
from rae_dit.sampling import generate as generation
from rae_dit.sampling.latents import initial_noise, sample_keys, step_noise
from rae_dit.setup import networks, weights
from rae_dit.setup.sampling import generation_settings, load_generator
from rae_dit.training.sharding import make_mesh

LABELS = [i % 10 for i in range(20)]
CLOSE = 1e-5  # of [0, 1]; programs for other batches and devices round otherwise


@functools.cache
def generator_on(devices, *, guided=False, fsdp=1):
    """The models on the first devices."""
    config = sampling_config(**(GUIDED if guided else {}))
    mesh = make_mesh(fsdp, jax.devices()[:devices])
    return generation.Generator(
        nnx.merge(*weights.place_ddt(config, Path("nowhere"), mesh)),
        nnx.merge(*weights.place_rae(config, mesh, decoder=True)),
        mesh,
        nnx.merge(*networks.place_guide(config, mesh)) if guided else None,
    )


def images(changes=None, *, devices=8, labels=LABELS, guided=False, first=0):
    """What `generate` gives on the first devices."""
    config = sampling_config(**((GUIDED if guided else {}) | (changes or {})))
    generator = generator_on(devices, guided=guided)
    made = generation.generate(
        generator, generation_settings(config), labels, cfg_scale=2.0, first=first
    )
    return np.concatenate(list(made))


def difference(a, b):
    return float(np.max(np.abs(a - b)))


@pytest.fixture(scope="module")
def eights():
    return images()


def test_images_differ_from_each_other_and_between_labels(eights):
    assert eights.shape == (20, 8, 8, 3)
    assert min(difference(eights[i], eights[j]) for i in range(20) for j in range(i)) > 1e-3
    others = images(labels=[(label + 1) % 10 for label in LABELS])
    assert min(difference(a, b) for a, b in zip(eights, others, strict=True)) > 1e-4


@pytest.mark.parametrize(
    ("method", "batch", "devices"), [("euler", 64, 8), ("euler", 7, 1), ("sde", 7, 1)]
)
def test_neither_batch_size_nor_devices_change_an_image(method, batch, devices):
    """Against batches of 7, filled up to 8, on 8 devices."""
    expected = images({"sample.method": method})
    found = images({"sample.method": method, "sample.batch_size": batch}, devices=devices)
    assert difference(expected, found) < CLOSE
    bytes_differ = np.abs(to_uint8(expected).astype(int) - to_uint8(found))
    assert bytes_differ.max() <= 1
    assert np.mean(bytes_differ > 0) < 1e-3


def test_parameters_split_over_devices_make_the_same_images(eights):
    generator = generator_on(8, fsdp=4)
    kernel = generator.ddt.backbone.blocks.attention.qkv.kernel[...]
    assert kernel.sharding.shard_shape(kernel.shape)[1] == kernel.shape[1] // 4
    config = sampling_config()
    made = generation.generate(generator, generation_settings(config), LABELS, cfg_scale=2.0)
    assert difference(np.concatenate(list(made)), eights) < CLOSE


def test_the_sampler_is_traced_with_the_mesh_in_force(monkeypatch):
    """So that blocks split the batch, whatever their parameters are split along."""
    seen = []

    def run_sampler(ddt, noise, labels, options, **settings):
        seen.append(jax.sharding.get_abstract_mesh())
        return noise

    monkeypatch.setattr(generation, "run_sampler", run_sampler)
    generator = generator_on(8, fsdp=4)
    labels = np.zeros(8, np.int32)
    settings = generation_settings(sampling_config())
    generation.make_latents(generator, settings, labels, cfg_scale=1.0, first=0)
    assert seen == [generator.mesh.abstract_mesh]
    assert jax.sharding.get_abstract_mesh().empty


def test_an_image_that_is_not_finite_stops_its_batch_and_is_named(monkeypatch):
    make = generation.make_latents

    def spoil(*arguments, first, **settings):
        latents = make(*arguments, first=first, **settings)
        return latents.at[1].set(jnp.nan) if first == 107 else latents

    monkeypatch.setattr(generation, "make_latents", spoil)
    config = sampling_config(**{"sample.batch_size": 7})
    labels = [3] * 8 + [5] * 12
    settings = generation_settings(config)
    batches = generation.generate(generator_on(1), settings, labels, cfg_scale=2.0, first=100)
    assert len(next(batches)) == 7
    with pytest.raises(generation.NotFiniteError, match=r"^image 108 \(label 5\) is not finite: "):
        next(batches)


def test_later_images_are_the_same_when_made_alone(eights):
    later = images(labels=LABELS[13:], first=13)
    assert difference(eights[13:], later) < CLOSE


def test_the_seed_changes_every_image(eights):
    other = images({"sample.seed": 1}, labels=LABELS[:8])
    assert min(difference(a, b) for a, b in zip(eights[:8], other, strict=True)) > 1e-3


def test_step_noise_is_each_image_s_and_each_update_s_own():
    keys = sample_keys(jax.random.key(0), np.arange(3))
    rows = [step_noise(keys, jnp.int32(step), (2, 2, 4)) for step in range(2)]
    np.testing.assert_array_equal(rows[1][2:], step_noise(keys[2:], jnp.int32(1), (2, 2, 4)))
    every = np.concatenate([*rows, initial_noise(jax.random.key(0), np.arange(3), (2, 2, 4))])
    assert min(difference(every[i], every[j]) for i in range(9) for j in range(i)) > 0.1


def test_shares_hold_what_is_wanted_and_nothing_else(eights):
    config = sampling_config()
    generator = load_generator(config, Path("nowhere"))
    shares = list(
        generation.generate_shares(
            generator, generation_settings(config), LABELS, cfg_scale=2.0, wanted={2, 3, 17}
        )
    )
    assert [share.numbers.tolist() for share in shares] == [[2, 3], [17]]  # not batch 8-15
    for share in shares:
        np.testing.assert_array_equal(share.images, eights[share.numbers])


def test_a_smaller_guide_from_a_file_guides(eights):
    guided = images(guided=True, labels=LABELS[:8])
    assert difference(guided, eights[:8]) > 1e-3


def test_a_guide_of_other_latents_or_classes_is_refused():
    mesh = make_mesh(1, jax.devices()[:1])
    config = sampling_config(**GUIDED, **{"data.num_classes": 4})
    with pytest.raises(ConfigError, match=r"24\) and 10 classes; expected .* and 4 classes"):
        networks.place_guide(config, mesh)
    config = sampling_config(**GUIDED, **{"encoder.hidden_size": 16})
    with pytest.raises(ConfigError, match=r"\(4, 4, 24\) and 10 classes; expected a model of lat"):
        networks.place_guide(config, mesh)


# --- what guidance asks the models; these clear JAX's caches, so they come last ------------------


@pytest.fixture(scope="module")
def model():
    ddt = rae_dit.load_ddt(GUIDE)  # the smaller of the two
    noise = jax.random.normal(jax.random.key(0), (3, 4, 4, 24))
    return ddt, noise, jnp.array([1, 2, 3])


@pytest.fixture
def rows(monkeypatch):
    """Counts the rows that each model is asked about while running: {parameters: rows}."""
    counted: dict[int, int] = {}
    plain = DDT.__call__

    def counting(self, x, t, y, r=None):
        width = self.label_table.shape[1]
        jax.debug.callback(lambda: counted.update({width: counted.get(width, 0) + len(x)}))
        return plain(self, x, t, y, r)

    monkeypatch.setattr(DDT, "__call__", counting)
    jax.clear_caches()  # programs of earlier tests do not count
    yield counted
    jax.clear_caches()


@pytest.mark.parametrize(("method", "a_step"), [("euler", 1), ("heun", 2)])
def test_interval_gives_the_samples_of_computing_everything_with_fewer_evaluations(
    model, rows, method, a_step
):
    ddt, noise, labels = model
    confined = rae_dit.sample_latents(
        *(ddt, noise, labels),
        **{"steps": 10, "shift": 1.0, "grid": "full", "method": method},
        **{"cfg_scale": 3.0, "cfg_interval": (0.25, 0.75)},
    )
    jax.block_until_ready(confined)
    jax.effects_barrier()
    inside = 5  # of the times .9, .8, ... .1; a guided evaluation asks about twice the rows
    assert rows[32] == a_step * (10 + inside) * len(noise)

    guided = guidance.classifier_free(ddt, labels, null_label=10, scale=3.0)
    plain = guidance.conditional(ddt, labels)

    def selecting(x, t):
        acts = ((t >= 0.25) & (t <= 0.75))[:, None, None, None]
        return jnp.where(acts, guided(x, t), plain(x, t))

    solver = {"euler": Euler(), "heun": Heun()}[method]
    times = time_grid(10, 1.0, grid="full")
    expected = solver.integrate(noise, times, VelocityField(selecting))
    assert relative_error(confined, expected) < 1e-5


def test_autoguidance_asks_each_model_once_about_its_own_batch(model, rows):
    _, noise, labels = model
    strong = rae_dit.load_ddt(GUIDE.replace("_weak", ""))
    settings = {"steps": 5, "shift": 2.5, "cfg_scale": 1.5, "guide": model[0]}
    out = rae_dit.sample_latents(strong, noise, labels, **settings)
    jax.block_until_ready(out)
    jax.effects_barrier()
    assert rows == {48: 4 * 3, 32: 4 * 3}  # 4 updates, 3 samples


def test_scale_one_never_asks_the_guide(model, rows):
    _, noise, labels = model
    strong = rae_dit.load_ddt(GUIDE.replace("_weak", ""))
    alone = rae_dit.sample_latents(strong, noise, labels, steps=5)
    rows.clear()
    out = rae_dit.sample_latents(strong, noise, labels, steps=5, guide=model[0])
    jax.effects_barrier()
    np.testing.assert_array_equal(out, alone)
    assert 32 not in rows
