"""The step that trains decoder and discriminator."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.small_run import assert_trees_equal, batches, host, small_config, take_steps

from rae_dit.objectives.adversarial import generator_loss
from rae_dit.objectives.reconstruction import decode, reconstruction
from rae_dit.setup import gan, models
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.gan_updates import (
    Perceptual,
    decoder_gradient,
    discriminator_update,
    quantize_uint8,
)
from rae_dit.training.sharding import make_mesh, shard_batch

SETTINGS = {  # the discriminator from step 1, the decoder's term from step 2
    "objective": "reconstruction",
    "encoder.depth": 1,
    "decoder.depth": 1,
    "gan.weight": 0.75,
    "gan.discriminator_start": 1,
    "gan.start": 2,
    "gan.warmup_steps": 2,
    "gan.decay_end_step": 8,
    "gan.learning_rate": 1e-2,
    "gan.final_learning_rate": 1e-3,
    "discriminator.features": "encoder",
    "discriminator.layers": (0, 0),
    "discriminator.kernel_size": 3,
}


def config_of(**changes):
    return small_config(**(SETTINGS | changes))


class Parts:
    """What the step is made of, at step 2, where everything is on."""

    def __init__(self):
        self.config = config_of()
        self.mesh = make_mesh(1, jax.devices()[:1])
        self.program = make_program(self.config, self.mesh)
        state = self.program.create()
        # At step 0 the CLS token is zero, and a LayerNorm of it has a gradient of 1e6.
        params = jax.tree.map(
            lambda p: p + 0.02 * jnp.cos(jnp.arange(p.size)).reshape(p.shape), state.params
        )
        self.state = dataclasses.replace(state, step=jnp.int32(2), params=params)
        self.frozen = make_task(self.config).load_frozen(self.mesh)
        self.rae = models.rae_graph(self.config, decoder=True)
        self.discriminator = gan.make_discriminator(self.config)
        objective = make_task(self.config).objective
        batch = batches(self.config, 1)[0]
        self.example = dict(jax.jit(objective.sample_inputs)(self.frozen, batch, jax.random.key(3)))
        for number, name in enumerate(("decoder_keys", "real_keys", "fake_keys")):
            self.example[name] = jax.random.split(jax.random.key(number), 8)

    def decoder_gradient(self, example):
        return jax.jit(
            lambda state, part: decoder_gradient(
                state, self.frozen, part, self.rae, None, self.discriminator
            )
        )(self.state, example)

    def terms(self, params):
        """L1 and adversarial loss of the decoder, written down plainly."""
        image = decode(self.rae, params, self.frozen, self.example["tokens"])
        judge = self.state.discriminator
        logits = self.discriminator.logits(
            judge.params, judge.vectors, self.frozen, self.example["decoder_keys"], image
        )
        return jnp.mean(jnp.abs(image - self.example["image"])), generator_loss(logits)


@pytest.fixture(scope="module")
def parts():
    return Parts()


def test_adaptive_weight_is_that_of_finite_differences(parts):
    kernel = parts.state.params["predict"]["kernel"]
    step = 2e-3

    def losses(offset):
        moved = {"kernel": kernel + offset.reshape(kernel.shape)}
        return jnp.stack(
            parts.terms(parts.state.params | {"predict": parts.state.params["predict"] | moved})
        )

    slopes = jax.jit(jax.vmap(lambda row: (losses(row) - losses(-row)) / (2 * step)))(
        step * jnp.eye(kernel.size)
    )
    ratio = jnp.linalg.norm(slopes[:, 0]) / jnp.linalg.norm(slopes[:, 1])
    metrics, _ = parts.decoder_gradient(parts.example)
    assert 0.01 < float(ratio) < 100
    np.testing.assert_allclose(metrics["adaptive_weight"], ratio, rtol=0.02)


def test_gradient_is_that_of_the_weighted_sum_with_the_weight_held(parts):
    metrics, gradient = parts.decoder_gradient(parts.example)

    def total(params):
        l1, gan = parts.terms(params)
        return l1 + 0.75 * metrics["adaptive_weight"] * gan, (l1, gan)

    (_, terms), wanted = jax.jit(jax.value_and_grad(total, has_aux=True))(parts.state.params)
    np.testing.assert_allclose((metrics["l1"], metrics["gan"]), terms, rtol=1e-4)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5 * scale),
        gradient,
        wanted,
    )


class SquaredError(nnx.Module):
    """Stands in for LPIPS: a distance of pairs with a parameter."""

    def __init__(self):
        self.scale = nnx.Param(jnp.float32(3.0))

    def __call__(self, a, b):
        return self.scale[...] * jnp.mean(jnp.square(a - b), axis=(1, 2, 3))


def test_the_perceptual_term_starts_when_told_and_adds_to_the_gradient(parts):
    graph, leaves = nnx.split(SquaredError())
    frozen = parts.frozen | {"lpips": nnx.to_pure_dict(leaves)}
    weight = 0.5

    def gradient(start):
        term = Perceptual(graph, weight=weight, start=start)
        return jax.jit(
            lambda state: decoder_gradient(state, frozen, parts.example, parts.rae, term, None)
        )(parts.state)

    def plain(params, weight):
        example = parts.example
        error = decode(parts.rae, params, frozen, example["tokens"]) - example["image"]
        distance = 3 * jnp.mean(jnp.square(error))
        return jnp.mean(jnp.abs(error)) + weight * distance, distance

    for start, weighs in ((2, weight), (3, 0.0)):  # the state stands at step 2
        metrics, found = gradient(start)
        (loss, distance), wanted = jax.value_and_grad(plain, has_aux=True)(
            parts.state.params, weighs
        )
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
        np.testing.assert_allclose(metrics["lpips"], distance if weighs else 0, rtol=1e-5)
        scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
        jax.tree.map(
            lambda a, b, scale=scale: np.testing.assert_allclose(a, b, atol=1e-4 * scale),
            found,
            wanted,
        )
    settings = {"noise_tau": 0.0, "lpips_weight": weight}
    objective = reconstruction(parts.rae, parts.rae, graph, **settings)
    loss, metrics = objective.loss(parts.state.params, frozen, parts.example)
    assert loss.shape == (8,)
    wanted, distance = plain(parts.state.params, weight)
    np.testing.assert_allclose(loss.mean(), wanted, rtol=1e-5)
    np.testing.assert_allclose(metrics["lpips"].mean(), distance, rtol=1e-5)


@pytest.mark.parametrize("fakes", ["clean", "noisy"])
def test_the_discriminator_learns_second_from_the_new_decoder(parts, fakes):
    config = config_of(**{"gan.fakes": fakes})
    program = parts.program if config == parts.config else make_program(config, parts.mesh)
    batch = shard_batch(batches(config, 1)[0], parts.mesh)
    before = parts.state
    after, metrics = program.step(jax.tree.map(jnp.copy, before), parts.frozen, batch)
    assert float(metrics["skipped"]) == 0

    draw_key, *augment_keys = jax.random.split(jax.random.fold_in(before.key, before.step), 4)
    draw = make_task(config).objective.sample_inputs
    example = jax.jit(draw)(parts.frozen, batch, draw_key)
    assert not np.allclose(example["tokens"], example["clean_tokens"], atol=0.1)
    right, wrong = ("tokens", "clean_tokens") if fakes == "noisy" else ("clean_tokens", "tokens")
    judged = {  # `parts` decodes clean tokens
        "image": batch["image"],
        "clean_tokens": example[right],
        "real_keys": jax.random.split(augment_keys[1], 8),
        "fake_keys": jax.random.split(augment_keys[2], 8),
    }
    update = jax.jit(
        lambda old, params, example: discriminator_update(
            old, params, parts.frozen, example, parts.discriminator, 1
        )
    )
    wanted, judgement = update(before.discriminator, after.params, judged)
    for name, value in judgement.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        after.discriminator.vectors,
        wanted.vectors,
    )
    assert int(after.discriminator.updates) == 1
    _, others = update(
        before.discriminator, after.params, judged | {"clean_tokens": example[wrong]}
    )
    _, olds = update(before.discriminator, before.params, judged)
    for other in others, olds:  # a mean of logits may be the same by chance, but not all metrics
        apart = [abs(float(other[name] - metrics[name])) for name in judgement]
        assert max(apart) > 1e-4


def eight_bits(image):
    """What a reader of the saved file gets, by NumPy."""
    levels = np.rint(np.clip(np.asarray(image, np.float64), 0, 1) * 255).astype(np.uint8)
    return levels.astype(np.float32) / 255


def iterated(kernel, u):
    """The next u and v of one kernel [K, I, O], by NumPy and the definition."""
    matrix = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]).T
    v = matrix.T @ np.asarray(u, np.float64)
    v /= np.linalg.norm(v)
    u = matrix @ v
    assert np.linalg.norm(u) <= np.linalg.svd(matrix)[1][0] * (1 + 1e-6)
    return u / np.linalg.norm(u), v.reshape(kernel.shape[:-1])


def all_iterated(heads, vectors):
    """The next u and v of every kernel."""
    following = {}
    for name, layer in vectors.items():
        pairs = zip(heads[name]["kernel"], layer["u"], strict=True)
        u, v = zip(*(iterated(*pair) for pair in pairs), strict=True)
        following[name] = {"u": np.stack(u), "v": np.stack(v)}
    return following


def test_the_discriminator_sees_eight_bit_fakes_through_vectors_iterated_for_each_pass(parts):
    """The oracles are NumPy's: neither `quantize_uint8` nor `power_iteration` is asked."""
    # A decoder that leaves [0, 1] far enough for clipping to matter.
    predict = {**parts.state.params["predict"]}
    predict["bias"] = predict["bias"] + jnp.linspace(-4, 4, predict["bias"].size)
    before = dataclasses.replace(parts.state, params=parts.state.params | {"predict": predict})
    batch = shard_batch(batches(parts.config, 1)[0], parts.mesh)
    after, metrics = parts.program.step(jax.tree.map(jnp.copy, before), parts.frozen, batch)

    kernels = before.discriminator.params["heads"]
    for_real = all_iterated(kernels, before.discriminator.vectors["heads"])
    for_fake = all_iterated(kernels, for_real)
    for name, layer in for_fake.items():
        for leaf, wanted in layer.items():
            found = after.discriminator.vectors["heads"][name][leaf]
            np.testing.assert_allclose(found, wanted, atol=1e-5)
            if name != "judge":  # a matrix of one row is done after one iteration
                assert not np.allclose(for_real[name][leaf], wanted, atol=1e-2), (name, leaf)

    draw_key, *augment_keys = jax.random.split(jax.random.fold_in(before.key, before.step), 4)
    draw = make_task(parts.config).objective.sample_inputs
    tokens = jax.jit(draw)(parts.frozen, batch, draw_key)["clean_tokens"]
    raw = np.asarray(
        jax.jit(decode, static_argnums=0)(parts.rae, after.params, parts.frozen, tokens)
    )

    @jax.jit
    def mean_logit(vectors, image, keys):
        params = before.discriminator.params
        vectors = jax.tree.map(jnp.float32, {"heads": vectors})
        return jnp.mean(parts.discriminator.logits(params, vectors, parts.frozen, keys, image))

    # Which of the two iterations a pass uses does not show in its logits: a norm takes away the
    # scale of all kernels but the last, whose matrix is a row and needs one iteration.
    old = before.discriminator.vectors["heads"]
    real_keys, fake_keys = (jax.random.split(key, 8) for key in augment_keys[1:])
    found = float(metrics["logits_real"])
    assert found == pytest.approx(float(mean_logit(for_real, batch["image"], real_keys)), rel=1e-5)
    assert found != pytest.approx(float(mean_logit(old, batch["image"], real_keys)), rel=1e-4)
    found = float(metrics["logits_fake"])
    assert found == pytest.approx(float(mean_logit(for_fake, eight_bits(raw), fake_keys)), rel=1e-5)
    others = {
        "raw": (for_fake, raw),
        "clipped": (for_fake, np.clip(raw, 0, 1)),
        "rounded": (for_fake, np.rint(raw * 255) / 255),
        "old vectors": (old, eight_bits(raw)),
    }
    for name, inputs in others.items():
        assert found != pytest.approx(float(mean_logit(*inputs, fake_keys)), rel=1e-4), name


def test_accumulation_is_one_big_batch_but_for_the_adaptive_weight(parts):
    whole, cut = (
        jax.jit(
            lambda old, steps=steps: discriminator_update(
                old, parts.state.params, parts.frozen, parts.example, parts.discriminator, steps
            )[1]
        )(parts.state.discriminator)
        for steps in (1, 4)
    )
    for name, value in whole.items():
        np.testing.assert_allclose(cut[name], value, rtol=1e-4, atol=1e-7)


def test_terms_start_when_told_in_one_program(parts):
    program, state, metrics = take_steps(config_of(), 4)
    assert program.step._cache_size() == 1
    first = parts.program.create()
    judged = [m["discriminator_loss"] > 0 for m in metrics]
    assert judged == [False, True, True, True]
    assert [m["adaptive_weight"] > 0 for m in metrics] == [False, False, True, True]
    assert [m["gan"] != 0 for m in metrics] == [False, False, True, True]
    rates = [m["discriminator_lr"] for m in metrics]  # by its own updates
    np.testing.assert_allclose(rates[:3], [0, 5e-3, 1e-2], rtol=1e-6)
    assert int(state.discriminator.updates) == 3
    assert state.ema.keys() == state.params.keys() == first.params.keys()

    _, waiting, _ = take_steps(config_of(), 1)
    assert_trees_equal(waiting.discriminator, first.discriminator)


def test_before_the_discriminator_starts_the_step_is_that_of_l1_alone():
    _, alone, _ = take_steps(config_of(**{"gan.weight": 0.0, "decoder.noise_tau": 0.0}), 2)
    late = {"gan.discriminator_start": 9, "gan.start": 9, "decoder.noise_tau": 0.0}
    _, together, _ = take_steps(config_of(**late), 2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        host(together.ema),
        host(alone.ema),
    )
    assert alone.discriminator is None


@pytest.mark.parametrize("broken", ["image", "judge"])
def test_a_step_that_is_not_finite_changes_neither_side(parts, broken):
    batch = batches(parts.config, 1)[0]
    # At step 1 the decoder has no adversarial term yet: it is fine whatever the judge says.
    state = dataclasses.replace(jax.tree.map(jnp.copy, parts.state), step=jnp.int32(1))
    if broken == "image":
        batch["image"] = batch["image"].copy()
        batch["image"][3, 2, 1, 0] = np.nan
    else:
        params = jax.tree.map(lambda leaf: leaf * jnp.inf, state.discriminator.params)
        state = dataclasses.replace(
            state, discriminator=dataclasses.replace(state.discriminator, params=params)
        )
    before = jax.tree.map(jnp.copy, state)
    after, metrics = parts.program.step(state, parts.frozen, shard_batch(batch, parts.mesh))
    assert float(metrics["skipped"]) == 1
    for name in ("params", "ema", "opt_state", "discriminator"):
        assert_trees_equal(getattr(after, name), getattr(before, name))
    assert int(after.step) == 2
    assert int(after.bad_steps) == 1


@functools.cache
def trained(devices, fsdp):
    config = config_of(**{"sharding.fsdp": fsdp, "gan.discriminator_start": 0, "gan.start": 1})
    return take_steps(config, 3, devices=devices)


def without_idle(heads):
    """Without the biases that a norm takes away again: Adam turns their rounding into steps."""
    return {
        (*name, leaf): value
        for name, layer in ((("heads", name), layer) for name, layer in heads["heads"].items())
        for leaf, value in layer.items()
        if (name[1], leaf) not in {("enter", "bias"), ("mix", "bias")}
    }


@pytest.mark.parametrize("fsdp", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_two_devices_hold_the_discriminator_of_one(fsdp):
    _, one, one_metrics = trained(1, 1)
    _, two, two_metrics = trained(2, fsdp)
    for leaf in jax.tree.leaves(two.discriminator):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == 2
        np.testing.assert_array_equal(copies[0], copies[1])
        assert copies[0].shape == leaf.shape
    for name in ("params", "vectors"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4),
            *(without_idle(host(getattr(s.discriminator, name))) for s in (one, two)),
        )
    for a, b in zip(one_metrics, two_metrics, strict=True):
        for name in ("l1", "discriminator_loss", "adaptive_weight"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-3, atol=1e-6)


def test_reconstructions_are_judged_as_saved():
    image = jnp.asarray([-0.2, 0.0, 0.49 / 255, 0.51 / 255, 0.701, 1.3]).reshape(1, 1, 2, 3)
    np.testing.assert_allclose(
        quantize_uint8(image).ravel() * 255, [0, 0, 0, 1, 179, 255], atol=1e-4
    )
