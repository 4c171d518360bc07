"""Probing trains one layer on a frozen encoder; with the encoder thawed it trains both."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from support.small_run import assert_trees_equal, batches, host, small_config, take_steps

import rae_dit
from rae_dit.config import ConfigError
from rae_dit.data.sources import synthetic
from rae_dit.flops import Matmul
from rae_dit.modes import probe as act
from rae_dit.modes.probe import probe
from rae_dit.modes.train import train
from rae_dit.objectives.classification import cross_entropy, mean_token
from rae_dit.setup import data, models, weights
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh

FROZEN = {"objective": "classification", "probe.freeze_encoder": True}
FROZEN |= {"data.num_classes": 7, "encoder.depth": 1}
THAWED = FROZEN | {"probe.freeze_encoder": False}


def saved(monkeypatch, **changes):
    """A short run's config; 20 held-out images, which is two batches and a half."""
    lengths = {"optim.max_steps": 6, "checkpoint.save_every": 3, "metrics.log_every": 2}
    monkeypatch.setattr(
        data, "held_out", lambda config: synthetic(8, config.data.num_classes, 20, 1)
    )
    return small_config(**(lengths | changes))


def test_accuracies_are_those_of_a_sort():
    rng = np.random.default_rng(0)
    logits = rng.permuted(np.tile(np.arange(9, dtype=np.float32), (200, 1)), axis=1)
    label = rng.integers(0, 9, 200).astype(np.int32)
    entropy, metrics = cross_entropy(jnp.asarray(logits), jnp.asarray(label))
    rank = (logits > logits[np.arange(200), label][:, None]).sum(1)
    np.testing.assert_array_equal(metrics["accuracy"], rank == 0)
    np.testing.assert_array_equal(metrics["top5_accuracy"], rank < 5)
    likelihood = np.exp(logits)[np.arange(200), label] / np.exp(logits).sum(1)
    np.testing.assert_allclose(entropy, -np.log(likelihood), rtol=1e-5)
    few, _ = cross_entropy(jnp.asarray(logits[:, :5]), jnp.zeros(200, jnp.int32)), None
    assert set(few[1]) == {"accuracy"}


def test_a_probe_trains_the_layer_and_never_touches_the_encoder():
    config = small_config(**FROZEN, **{"optim.name": "sgd", "optim.learning_rate": 0.5})
    program, state, metrics = take_steps(config, 3)
    before = host(make_task(config).load_frozen(make_mesh(1, jax.devices()[:1])))
    assert set(state.params) == {"kernel", "bias"} == set(state.ema)
    assert state.params["kernel"].shape == (16, 7)
    start = host(program.create().params)
    assert np.abs(host(state.params)["kernel"] - start["kernel"]).max() > 1e-3
    assert {"loss", "accuracy", "top5_accuracy"} <= metrics[0].keys()
    # The step is given the encoder and gives nothing of it back; the arrays are as they were.
    frozen = make_task(config).load_frozen(make_mesh(1, jax.devices()[:1]))
    batch = jax.tree.map(jnp.asarray, batches(config, 1)[0])
    program.step(program.create(), frozen, batch)
    assert_trees_equal(frozen, before)


def test_one_step_of_a_probe_is_logistic_regression_by_hand():
    config = small_config(**FROZEN)
    objective = make_task(config).objective
    mesh = make_mesh(1, jax.devices()[:1])
    frozen = weights.place_rae(config, mesh, decoder=False)
    batch = jax.tree.map(jnp.asarray, batches(config, 1)[0])
    example = objective.sample_inputs(frozen.parameters, batch, jax.random.key(0))
    token = mean_token(nnx.merge(*frozen), batch["image"])
    np.testing.assert_array_equal(example["token"], token)
    tokens = nnx.merge(*frozen).tokens(batch["image"])
    assert tokens.shape == (8, 16, 16)
    np.testing.assert_allclose(token, np.asarray(tokens).mean(1), atol=1e-6)
    params = weights.initialize(models.make_head, config, mesh).parameters
    gradient = jax.grad(lambda p: jnp.mean(objective.loss(p, {}, example)[0]))(params)
    chance = jax.nn.softmax(token @ params["kernel"] + params["bias"])
    error = (chance - jax.nn.one_hot(batch["label"], 7)) / len(token)
    np.testing.assert_allclose(gradient["kernel"], token.T @ error, atol=1e-6)
    np.testing.assert_allclose(gradient["bias"], error.sum(0), atol=1e-6)


def test_a_probe_multiplies_for_no_gradient_of_the_encoder():
    once, ours = (make_task(small_config(**fields)).work for fields in (FROZEN, THAWED))
    assert once.trained == [Matmul(1, 16, 7)]
    assert once.frozen + once.trained == ours.trained
    assert ours.frozen == []


def test_the_thawed_encoder_learns_with_the_layer():
    _, state, _ = take_steps(small_config(**THAWED), 2)
    start = take_steps(small_config(**THAWED), 0)[1]
    before, after = host(start.params), host(state.params)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert set(state.params) == {"rae", "head"}
    assert changed["rae"]["encoder"]["embed"]["kernel"]
    assert changed["head"]["kernel"]


@pytest.mark.parametrize("fields", [FROZEN, THAWED])
def test_the_act_judges_all_held_out_images(fields, monkeypatch, tmp_path):
    config = saved(monkeypatch, **fields)
    probe(config, tmp_path)
    report = json.loads((tmp_path / "probe.json").read_text())
    assert (report["images"], report["step"]) == (20, 6)
    assert report["freeze_encoder"] is fields["probe.freeze_encoder"]

    mesh = make_mesh(1)
    program = make_program(config, mesh)
    state, _ = act.restore_state(tmp_path, program.abstract)
    source = data.held_out(config)
    image = jnp.asarray(np.stack([source[i]["image"] for i in range(20)]) / np.float32(255))
    label = np.array([source[i]["label"] for i in range(20)])
    params = {"parameters": state.params, "ema": state.ema}
    for name, values in params.items():
        if fields is FROZEN:
            rae = nnx.merge(*weights.place_rae(config, mesh, decoder=False))
            logits = mean_token(rae, image) @ values["kernel"] + values["bias"]
        else:
            graph = nnx.graphdef(models.abstract(models.make_classifier, config))
            logits = nnx.merge(graph, values)(image)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
        assert report[name]["loss"] == pytest.approx(float(entropy), rel=1e-5)
        assert report[name]["accuracy"] == np.mean(np.argmax(logits, -1) == label)
        assert report[name]["top5_accuracy"] >= report[name]["accuracy"]


def test_a_finished_run_is_judged_without_another_step(monkeypatch, tmp_path):
    config = saved(monkeypatch, **THAWED)
    train(config, tmp_path)
    written = (tmp_path / "metrics.jsonl").read_text()
    probe(config, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == written
    assert json.loads((tmp_path / "probe.json").read_text())["images"] == 20


def test_a_run_that_was_stopped_is_not_judged(monkeypatch, tmp_path):
    config = saved(monkeypatch, **FROZEN)
    train(saved(monkeypatch, **FROZEN, **{"optim.max_steps": 3}), tmp_path)
    monkeypatch.setattr(act, "train", lambda config, workdir: config)
    probe(config, tmp_path)
    assert not (tmp_path / "probe.json").exists()


def test_what_a_probe_cannot_do_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^objective: got 'flow_matching'; expected 'classif"):
        probe(small_config(), tmp_path)
    config = small_config(**FROZEN, **{"data.source": "folder", "data.path": "x"})
    with pytest.raises(ConfigError, match=r"^data\.validation_path: got ''"):
        probe(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_autoencoder_of_a_probe_has_the_encoder_it_probed(monkeypatch, tmp_path):
    encoder, run = tmp_path / "encoder", tmp_path / "probe"
    train(saved(monkeypatch, **THAWED), encoder)
    probe(saved(monkeypatch, **FROZEN, **{"encoder.checkpoint": str(encoder)}), run)
    ours, theirs = rae_dit.load_rae(run), rae_dit.load_rae(encoder)
    assert_trees_equal(nnx.to_pure_dict(nnx.state(ours)), nnx.to_pure_dict(nnx.state(theirs)))
