"""--mode=sample: files, resuming, directories of others, and mistakes that end in one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from support.sampling_run import GUIDED, SETTINGS, pixels, sampling_config
from support.small_run import small_config
from support.training_states import open_checkpoints

from rae_dit.checkpoint.manager import CheckpointError
from rae_dit.config import ConfigError, to_dict
from rae_dit.modes import sample as modes_sample
from rae_dit.modes import sweep as modes_sweep
from rae_dit.modes.sample import sample
from rae_dit.sampling import image_directory
from rae_dit.sampling.generate import Share, generate_shares
from rae_dit.setup import weights
from rae_dit.setup.run import make_program
from rae_dit.storage.files import write_json
from rae_dit.training.sharding import make_mesh
from rae_dit.weights.mapping import WeightsError

ROOT = Path(__file__).parent.parent
COUNT = 50


def run(output: Path, **changes) -> None:
    base = {"sample.num_samples": COUNT, "sample.output_dir": str(output)}
    sample(sampling_config(**(base | changes)), output.parent / "no_run")


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    output = tmp_path_factory.mktemp("whole") / "samples"
    run(output)
    return output


def test_what_is_written(whole):
    images = pixels(whole)
    names = [f"{i:06d}_{i % 10}.png" for i in range(COUNT)]
    assert sorted(images) == names
    assert {p.name for p in whole.iterdir()} - set(names) == {
        *("manifest.json", "samples.npz", "grid.png")
    }
    with np.load(whole / "samples.npz") as npz:
        np.testing.assert_array_equal(npz["arr_0"], np.stack([images[name] for name in names]))
        np.testing.assert_array_equal(npz["arr_1"], np.arange(COUNT) % 10)
    manifest = json.loads((whole / "manifest.json").read_text())
    assert (manifest["num_samples"], manifest["cfg_scale"]) == (COUNT, 1.0)
    assert manifest["classes"] == list(range(10))
    assert manifest["weights of ddt"] != manifest["weights of rae"]
    assert len({image.tobytes() for image in images.values()}) == COUNT


def interrupted(generator, options, labels, **arguments):
    """Three batches of the shares, then the machine is gone."""
    for number, share in enumerate(generate_shares(generator, options, labels, **arguments)):
        if number == 3:
            raise KeyboardInterrupt
        yield share


def test_an_interrupted_run_ends_as_one_that_was_not(whole, tmp_path, monkeypatch):
    output = tmp_path / "samples"
    with monkeypatch.context() as patch:
        patch.setattr("rae_dit.modes.sample.generate_shares", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(output)
    assert len(pixels(output)) == 24
    assert not (output / "samples.npz").exists()
    # A write that was cut short, what a killed process leaves, and a lost image.
    torn = output / "000003_3.png"
    torn.write_bytes(torn.read_bytes()[:-4])
    (output / ".000025_5.png.123").write_bytes(b"half")
    (output / "000010_0.png").unlink()
    kept = (output / "000020_0.png").stat().st_mtime_ns
    run(output)
    assert contents(output) == contents(whole)
    assert (output / "000020_0.png").stat().st_mtime_ns == kept


def test_a_killed_run_ends_as_one_that_was_not(whole, tmp_path):
    output = tmp_path / "samples"
    base = {"sample.num_samples": COUNT, "sample.output_dir": output}
    command = [sys.executable, "-m", "rae_dit.main", f"--config={ROOT}/configs/dit_dummy.py"]
    command += [f"--workdir={tmp_path}", "--mode=sample"]
    command += [f"--config.{name}={value}" for name, value in (SETTINGS | base).items()]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while len(list(output.glob("[0-9]*.png"))) < 9 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    found = contents(output)
    assert len(found) > 9
    assert all(contents(whole)[name] == found[name] for name in found if name[0] == "0")
    run(output)
    assert contents(output) == contents(whole)


def test_a_finished_run_computes_nothing_again(whole, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in whole.glob("[0-9s]*")}
    made: list[Share] = []

    def recorded(*arguments, **named):
        for share in generate_shares(*arguments, **named):
            made.append(share)
            yield share

    monkeypatch.setattr("rae_dit.modes.sample.generate_shares", recorded)
    run(whole)
    assert made == []
    assert before == {path: path.stat().st_mtime_ns for path in whole.glob("[0-9s]*")}


def test_more_images_keep_the_first_ones(whole, tmp_path):
    output = tmp_path / "samples"
    run(output, **{"sample.num_samples": 13})
    run(output)
    assert contents(output) == contents(whole)


NEWER = ("internal_scale", "internal_null_scale", "flow.prediction", "decoder.pixels")


def test_a_directory_of_before_there_were_some_settings_is_continued(whole, tmp_path):
    output = tmp_path / "samples"
    shutil.copytree(whole, output)
    manifest = json.loads((output / "manifest.json").read_text())
    older = {name: value for name, value in manifest.items() if name not in NEWER}
    assert len(older) == len(manifest) - len(NEWER)
    write_json(output / "manifest.json", older)
    (output / "000049_9.png").unlink()
    run(output)
    assert contents(output) == contents(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sample.cfg_scale": 2.0},
            r"of other settings \(cfg_scale: got 1.0; expected 2.0\); empty it, or give ",
        ),
        ({"sample.seed": 1}, r"holds images of other settings \(seed: got 0; expected 1\)"),
        ({"sample.labels": "0-4"}, r"classes: got \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9\]; expected \["),
        ({"sample.num_samples": 40}, "holds 50 images, more than the 40 asked for"),
        ({"seed": 5}, r"settings \(weights of rae: got "),  # of the decoder's random numbers
    ],
)
def test_a_directory_of_other_images_is_refused(whole, changes, message):
    before = contents(whole)
    with pytest.raises(ConfigError, match=message) as caught:
        run(whole, **changes)
    assert f"--config.sample.output_dir={whole}-2" in str(caught.value)
    assert contents(whole) == before


def test_images_of_unknown_origin_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "000000_0.png")
    with pytest.raises(ConfigError, match="holds images without a manifest"):
        run(tmp_path)


def test_the_grid_is_bounded_and_named(tmp_path, monkeypatch):
    seen = {}

    def record(path, images, labels, names, *, columns):
        seen.update(images=images, labels=labels.tolist(), names=names)

    monkeypatch.setattr("rae_dit.modes.sample.sample_grid", record)
    monkeypatch.setattr("rae_dit.modes.sample.GRID_ROWS", 2)
    monkeypatch.setattr("rae_dit.modes.sample.GRID_COLUMNS", 3)
    run(tmp_path / "samples", **{"sample.labels": "7,3,5"})
    assert seen["labels"] == [7, 7, 7, 3, 3, 3]
    assert seen["names"][7] == "7"
    first = pixels(tmp_path / "samples")["000000_7.png"]
    np.testing.assert_allclose(seen["images"][0], first / 255, atol=1e-6)


# --- mistakes, met before anything is compiled ---------------------------------------------------


@pytest.fixture
def no_compile(monkeypatch):
    def forbidden(*arguments, **named):
        raise AssertionError("a model was run")

    monkeypatch.setattr("rae_dit.sampling.generate.run_sampler", forbidden)
    monkeypatch.setattr("rae_dit.sampling.codec.decode", forbidden)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({**GUIDED, "sample.guide_checkpoint": "none.pt"}, WeightsError, "There is no file or dir"),
        (
            {**GUIDED, "data.num_classes": 4},
            ConfigError,
            r"sample.guide_checkpoint: got .*weak.pt, of latents \(4, 4, 24\) and 10 classes",
        ),
        ({"sample.class_list": "none.txt"}, ConfigError, "sample.class_list: got 'none.txt'"),
        (
            {"ddt.pretrained": ""},
            CheckpointError,
            "no checkpoint at .*: there is no such directory",
        ),
        (
            {"sharding.fsdp": 8, "ddt.hidden_size": (36, 36), "ddt.num_heads": (3, 3)},
            ConfigError,
            "sharding.fsdp: got 8; expected 4, the largest divisor of 8 devices that works; 8 di",
        ),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, no_compile, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        run(tmp_path / "samples", **changes)
    assert "\n" not in str(caught.value)


def test_a_directory_that_cannot_be_written_is_met_before_any_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("rae_dit.modes.sample.load_generator", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"sample.output_dir: got .*file/samples' \(.*file is a file"
    ):
        run(tmp_path / "file" / "samples")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # tests may run as root
    with pytest.raises(ConfigError, match="no permission to write in"):
        run(tmp_path / "new" / "samples")
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The checkpoint of a stage-2 run, at its start."""
    path = tmp_path_factory.mktemp("trained")
    config = small_config(**{"compute.scan_layers": True})
    state = make_program(config, make_mesh(1, jax.devices()[:1])).create()
    write_json(path / "config.json", to_dict(config))
    with open_checkpoints(path / "checkpoints") as checkpoints:
        checkpoints.save(1, state, {})
    return path


@pytest.mark.parametrize(
    ("field", "value"), [("flow.prediction", "x"), ("ddt.num_heads", (1, 1)), ("ddt.use_rope", 0)]
)
def test_a_run_is_sampled_as_the_network_that_it_trained(
    trained, tmp_path, no_compile, field, value
):
    changes = {"sample.output_dir": str(tmp_path), "compute.scan_layers": True}
    config = small_config(**changes | {field: bool(value) if value == 0 else value})
    with pytest.raises(ConfigError, match=rf"{field}: got .*; expected .*, with which {trained}"):
        sample(config, trained)


def test_a_run_of_ours_is_a_guide_and_its_step_is_recorded(trained, tmp_path, no_compile):
    config = small_config(**{"sample.output_dir": str(tmp_path), "compute.scan_layers": True})
    with pytest.raises(AssertionError, match="a model was run"):
        sample(config, trained)
    manifest = json.loads((tmp_path / image_directory.MANIFEST).read_text())
    assert manifest["checkpoint"] == 1
    guided = {**GUIDED, "sample.guide_checkpoint": str(trained)}
    with pytest.raises(ConfigError, match=r"\(4, 4, 16\) and 4 classes; expected a model of lat"):
        run(tmp_path / "other", **guided)
    with pytest.raises(AssertionError, match="a model was run"):
        sample(small_config(**guided | {"sample.output_dir": str(tmp_path / "third")}), trained)


@pytest.mark.parametrize("mode", [modes_sample, modes_sweep])
def test_one_step_is_recorded_and_loaded(trained, tmp_path, monkeypatch, mode):
    """Though training saves another one meanwhile."""
    asked = []

    def stop(config, workdir, mesh, step):
        asked.append(step)
        raise AssertionError("stops here")

    listed = iter([1, 2, 3])
    monkeypatch.setattr(mode, "newest_step", lambda workdir: next(listed))
    monkeypatch.setattr("rae_dit.setup.weights.place_ddt", stop)
    provenance = mode.sample_provenance
    monkeypatch.setattr(
        mode,
        "sample_provenance",
        lambda config, step: asked.append(step) or provenance(config, step),
    )
    config = small_config(**{"sample.output_dir": str(tmp_path)})
    with pytest.raises(AssertionError, match="stops here"):
        (mode.sample if mode is modes_sample else mode.sweep)(config, trained)
    assert asked == [1, 1]


def test_the_step_that_is_asked_for_is_restored(trained, monkeypatch):
    asked = []
    monkeypatch.setattr(weights, "restore_ddt", lambda config, path, mesh: asked.append(path))
    config = small_config(**{"ddt.pretrained": "somewhere"})
    weights.place_ddt(config, trained, make_mesh(1), 7)
    assert asked == [trained / "checkpoints" / "7"]


def test_a_checkpoint_without_an_ema(trained, tmp_path, no_compile, monkeypatch):
    from rae_dit.checkpoint.integrity import Record

    whole = Record.from_json
    monkeypatch.setattr(
        Record, "from_json", lambda stored: Record({"train": whole(stored).trees["train"]}, 0)
    )
    config = small_config(**{"sample.output_dir": str(tmp_path), "compute.scan_layers": True})
    with pytest.raises(CheckpointError, match=r"1 has no 'ema' item, only \['train'\]; give a che"):
        sample(config, trained)
