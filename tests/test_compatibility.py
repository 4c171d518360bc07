"""Runs that an earlier commit made: today's code resumes, samples and loads them.

tests/golden/run_c46889a holds a run of each stage after four steps, and what that commit gave from
it; tests/golden/make_runs.py made both.
"""

import dataclasses
import json
import tarfile

import jax
import numpy as np
import pytest
from support.golden_files import GOLDEN, relative_error

import rae_dit
from rae_dit.modes.sample import sample
from rae_dit.modes.train import train
from rae_dit.weights.mapping import WeightsError
from rae_dit.workdir import read_config

RUN = GOLDEN / "run_c46889a"
# float32 has 6e-8. Another CPU sums in another order, and so does the command line, which sums over
# devices by Gloo; training widens the difference. In one process, with train() called as here,
# c46889a and 44bb442 agreed to the last bit in all 128 metrics.
TOLERANCE = 1e-5

# Names that metrics have got since.
RENAMED: dict[str, str] = {}


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """Both runs after four steps; tests that write take copies."""
    directory = tmp_path_factory.mktemp("runs")
    for stage in ("stage1", "stage2"):
        with tarfile.open(RUN / f"{stage}.tar.xz") as archive:
            archive.extractall(directory, filter="data")
    return directory


@pytest.fixture(scope="module")
def recorded():
    """Inputs of the public functions, and what they gave."""
    with np.load(RUN / "outputs.npz") as file:
        return dict(file)


def copy_run(stage, directory):
    """A copy that may be changed."""
    with tarfile.open(RUN / f"{stage}.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    return directory / stage


def metric_lines(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        {RENAMED.get(k, k): v for k, v in line.items() if not k.startswith(("speed/", "goodput/"))}
        for line in lines
    ]


def test_values_of_a_config_file_arrive(workdirs):
    config = read_config(workdirs / "stage2")
    assert (config.objective, config.seed, config.precision) == ("flow_matching", 42, "fp32")
    assert config.data.source == "synthetic"
    assert (config.encoder.hidden_size, config.decoder.hidden_size) == (8, 8)
    assert (config.ddt.hidden_size, config.ddt.depth) == ((8, 16), (2, 1))
    assert (config.flow.shift, config.ema.decay) == (1.5, 0.5)
    assert (config.optim.max_steps, config.optim.learning_rate) == (4, 0.01)
    assert config.checkpoint.best_metric == "val_ema/loss"
    assert (config.sample.cfg_scale, config.sample.num_steps) == (1.5, 4)
    config = read_config(workdirs / "stage1")
    assert config.objective == "reconstruction"
    assert (config.gan.weight, config.gan.start, config.gan.loss) == (0.75, 2, "hinge")
    assert (config.discriminator.features, config.discriminator.layers) == ("encoder", (0, 1))
    # Fields that are newer than the file: what c46889a did.
    assert (config.gan.epsilon, config.gan.weight_decay, config.gan.clip_norm) == (1e-8, 0.0, 1.0)
    assert config.gan.power_iteration == "per_update"


@pytest.mark.parametrize("stage", ["stage2", "stage1"])
def test_a_run_goes_on_as_it_would_have(stage, tmp_path, caplog):
    workdir = copy_run(stage, tmp_path)
    config = read_config(workdir)
    longer = dataclasses.replace(config.optim, max_steps=8)
    train(dataclasses.replace(config, optim=longer), workdir)
    assert caplog.text.count("continues with other settings: optim.max_steps 4 -> 8\n") == 1
    found = metric_lines(workdir / "metrics.jsonl")
    expected = metric_lines(RUN / f"{stage}_metrics.jsonl")
    assert [line["step"] for line in found] == list(range(1, 9))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=TOLERANCE, abs=0), name
    assert [path.name for path in (workdir / "checkpoints").glob("[0-9]*")] == ["8"]


def test_positions_that_the_decoder_had_not_stored_are_those_it_computed(workdirs):
    position = np.asarray(rae_dit.load_rae(workdirs / "stage1").decoder.position[...])
    assert position.shape == (1 + 4 * 4, 8)
    row, column = np.divmod(np.arange(16.0), 4)
    parts = [f(p[:, None] * [1, 0.01]) for p in (column, row) for f in (np.sin, np.cos)]
    np.testing.assert_allclose(position[1:], np.concatenate(parts, axis=1), atol=1e-6)
    np.testing.assert_array_equal(position[0], 0)


def test_samples_are_the_same(workdirs, recorded, tmp_path):
    config = read_config(workdirs / "stage2")
    settings = dataclasses.replace(config.sample, output_dir=str(tmp_path))
    sample(dataclasses.replace(config, sample=settings), workdirs / "stage2")
    with np.load(tmp_path / "samples.npz") as file:
        np.testing.assert_array_equal(file["arr_1"], recorded["labels"])
        difference = file["arr_0"].astype(int) - recorded["samples"]
    # An 8-bit value may tip over on another CPU; few do.
    assert np.abs(difference).max() <= 1
    assert np.count_nonzero(difference) <= difference.size // 100


def test_load_ddt_gives_the_same_velocity_and_latents(workdirs, recorded):
    ddt = rae_dit.load_ddt(workdirs / "stage2")
    velocity = jax.jit(ddt.__call__)(recorded["x"], recorded["t"], recorded["y"])
    assert relative_error(velocity, recorded["velocity"]) < TOLERANCE
    latents = rae_dit.sample_latents(
        ddt, recorded["x"], recorded["classes"], steps=5, cfg_scale=1.5
    )
    assert relative_error(latents, recorded["sampled_latents"]) < TOLERANCE


@pytest.mark.parametrize(("name", "value"), [("base_depth", 1), ("prediction", "x")])
def test_load_ddt_takes_no_argument_that_the_run_contradicts(workdirs, name, value):
    with pytest.raises(WeightsError, match=f"{name}: got {value}; expected ., which .*stage2 has"):
        rae_dit.load_ddt(workdirs / "stage2", **{name: value})


def test_load_rae_gives_the_same_latent_and_image(workdirs, recorded):
    rae = rae_dit.load_rae(workdirs / "stage1")
    latent = jax.jit(rae.encode)(recorded["image"])
    assert relative_error(latent, recorded["latent"]) < TOLERANCE
    image = jax.jit(rae.decode)(latent)
    assert relative_error(image, recorded["reconstruction"]) < TOLERANCE
