"""What may be switched on to look at a run: all of it at once, and the run is the same."""

import importlib.util
import json

import numpy as np
import pytest
from PIL import Image
from support.small_run import assert_trees_equal, batches, small_config
from support.watched_run import watch
from support.whole_run import SETTINGS, final_state, metric_lines

from rae_dit.config import ConfigError
from rae_dit.evaluation.figures import sample_grid
from rae_dit.modes.train import train
from rae_dit.sampling.generate import generate
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.setup.sampling import generation_settings, load_generator
from rae_dit.training.sharding import make_mesh, shard_batch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory):
    """The same four steps, stopped at two, with everything switched on that looks."""
    workdir = tmp_path_factory.mktemp("looked_at")
    return workdir, watch(workdir, workdir.with_suffix(".pickle"))


def test_looking_changes_nothing(straight, looked_at):
    workdir, _ = looked_at
    config = small_config(**SETTINGS)
    assert_trees_equal(final_state(workdir, config)[0], final_state(straight, config)[0])
    ours, theirs = metric_lines(workdir), metric_lines(straight)
    for line, other in zip(ours, theirs, strict=True):
        assert {name: line[name] for name in other} == other


def test_lengths_in_epochs_are_written_in_steps(looked_at):
    optim = json.loads((looked_at[0] / "config.json").read_text())["optim"]
    assert (optim["max_steps"], optim["max_epochs"]) == (4, None)


def test_what_is_seen_of_each_block_is_logged(looked_at):
    names = {"rms", "attention_logit"}
    blocks = {"backbone_00", "backbone_01", "head_00"}
    for line in metric_lines(looked_at[0]):
        seen = {name: value for name, value in line.items() if name.split("/")[0] in names}
        assert seen.keys() == {f"{name}/{block}" for name in names for block in blocks}
        logits = [value for name, value in seen.items() if name.startswith("attention_logit")]
        assert line["train/attention_logit_max"] == max(logits)
        assert all(seen[f"rms/{block}"] > 0 for block in blocks)


def test_it_is_seen_with_the_parameters_and_on_the_batch_of_the_step(looked_at):
    """The last line once more, from the last checkpoint."""
    workdir, _ = looked_at
    config, mesh = small_config(**(SETTINGS | {"metrics.telemetry": True})), make_mesh(1)
    state, _ = final_state(workdir, config)
    frozen, batch = make_task(config).load_frozen(mesh), shard_batch(batches(config, 4)[3], mesh)
    seen = make_program(config, mesh).telemetry(state.params, frozen, batch, state.key)
    line = metric_lines(workdir)[-1]
    assert {name: line[name] for name in seen} == {name: float(seen[name]) for name in seen}


def test_the_best_step_is_kept_besides_the_last(looked_at):
    workdir, _ = looked_at
    losses = {
        line["step"]: line["val_ema/loss"] for line in metric_lines(workdir) if "val/loss" in line
    }
    best = max(losses, key=lambda step: losses[step])
    assert best == 2
    saved = json.loads((workdir / "checkpoints" / "best.json").read_text())
    assert saved == {"step": best, "metric": "val_ema/loss", "value": losses[best]}
    kept = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.is_dir())
    assert kept == sorted({best, 4})


def test_a_trace_is_left(looked_at):
    assert list((looked_at[0] / "profile").rglob("*.xplane.pb"))


def test_weights_and_biases_get_it_all_as_one_run(looked_at):
    workdir, wandb = looked_at
    first, second = wandb.started
    assert first["id"] == second["id"] == (workdir / "wandb_id.txt").read_text()
    assert (first["project"], first["resume"], first["name"]) == ("digits", "allow", workdir.name)
    assert second["config"]["optim"]["max_steps"] == 4
    assert wandb.finished == 2
    scalars = [values for values in wandb.logged if "samples" not in values]
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert scalars == lines
    pictures = [values for values in wandb.logged if "samples" in values]
    assert [values["step"] for values in pictures] == [2, 3, 4]
    assert pictures[0]["samples"].shape[2] == 3


def test_pictures_are_the_first_samples_of_the_ema(looked_at):
    workdir, _ = looked_at
    pictures = [f"step_{step}.png" for step in (2, 3, 4)]
    assert sorted(p.name for p in (workdir / "pictures").iterdir()) == pictures
    config = small_config(**SETTINGS)
    labels = [0, 1, 2, 3]
    generator = load_generator(config, workdir)
    made = generate(generator, generation_settings(config), labels, cfg_scale=1.0)
    images = np.concatenate(list(made))
    names = [str(label) for label in labels]
    sample_grid(workdir / "again.png", images, np.array(labels), names, columns=10)
    pixels = [np.asarray(Image.open(workdir / p)) for p in ("again.png", "pictures/step_4.png")]
    np.testing.assert_array_equal(*pixels)


def test_weights_and_biases_must_be_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^metrics.wandb_project: got 'x'; .*pip install"):
        train(small_config(**{"metrics.wandb_project": "x"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_metric_that_is_not_measured_ends_the_run(tmp_path):
    settings = SETTINGS | {"checkpoint.best_metric": "val/los"}
    with pytest.raises(ConfigError, match=r"'val/los'; expected one of val/loss$"):
        train(small_config(**settings), tmp_path)
