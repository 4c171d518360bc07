"""--mode=stats: the same numbers however the work is shared, stopped and taken up again."""

import itertools
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from support.image_files import images_of
from support.memory_files import Memory
from support.run_processes import log_of, start_pair, wait
from support.small_run import small_config

from rae_dit.config import ConfigError
from rae_dit.data.sources import synthetic
from rae_dit.models.pixels import to_unit
from rae_dit.modes import stats as mode
from rae_dit.modes.stats import stats
from rae_dit.sampling import codec
from rae_dit.setup import data
from rae_dit.weights.statistics import read_statistics

IMAGES = 44  # five batches of eight and a half one
PARTIAL = "statistics.partial.npz"
SOURCE = synthetic(8, 4, IMAGES, 0)


def encode(graph, parameters, image):
    """Latents that are a function of the image alone, to the bit; eight by eight by three fit."""
    flat = jnp.pad(to_unit(image).reshape(len(image), -1), ((0, 0), (0, 256 - 192)))
    return flat.reshape(-1, 4, 4, 16)


@pytest.fixture
def exact(monkeypatch):
    """Takes the rounding of the encoder's float32 out of the comparison."""
    monkeypatch.setattr(codec, "encode", encode)
    monkeypatch.setattr(data, "open_source", lambda config, split: SOURCE)


def killed(monkeypatch, config, workdir: Path, saves: int) -> None:
    """Runs until `saves` partial files have been written."""
    number, write = itertools.count(1), mode.write_partial

    def write_and_die(*arguments, **named):
        write(*arguments, **named)
        if next(number) == saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mode, "write_partial", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            stats(config, workdir)


def test_batch_size_and_interruptions_leave_no_trace(exact, monkeypatch, tmp_path, caplog):
    config = small_config(**{"stats.save_every": 1})
    stats(config, tmp_path / "whole")
    whole = (tmp_path / "whole" / "statistics.npz").read_bytes()
    assert [path.name for path in (tmp_path / "whole").iterdir()] == ["statistics.npz"]

    other = tmp_path / "other"
    killed(monkeypatch, config, other, saves=3)
    assert [path.name for path in other.iterdir()] == [PARTIAL]
    wider = small_config(**{"data.batch_size": 16, "stats.save_every": 1})
    with caplog.at_level("INFO", "rae_dit"):
        killed(monkeypatch, wider, other, saves=1)
        assert f"continuing after 24 images, from {other / PARTIAL}" in caplog.text
        stats(small_config(**{"data.batch_size": 8}), other)
        assert "continuing after 40 images" in caplog.text
    assert (other / "statistics.npz").read_bytes() == whole
    assert not (other / PARTIAL).exists()

    latents = encode(None, None, np.stack([SOURCE[i]["image"] / 255.0 for i in range(IMAGES)]))
    found = read_statistics(tmp_path / "whole" / "statistics.npz", 4, 16)
    np.testing.assert_allclose(found.mean, latents.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.variance, latents.var(0), atol=1e-6)
    assert found.count == IMAGES


def test_a_file_says_what_it_is_of(exact, tmp_path):
    config = small_config()
    stats(config, tmp_path)
    said = json.loads(read_statistics(tmp_path / "statistics.npz", 4, 16).provenance)
    assert said["encoder"]["patch_size"] == config.encoder.patch_size
    assert (said["source"], said["fingerprint"]) == ("synthetic", SOURCE.fingerprint)
    assert (said["image_size"], said["precision"]) == (8, "fp32")
    assert (said["images"], said["damaged"]) == (IMAGES, 0)
    stats(small_config(seed=1), tmp_path / "other")
    other = json.loads(read_statistics(tmp_path / "other" / "statistics.npz", 4, 16).provenance)
    assert said.pop("encoder_checksum") != other.pop("encoder_checksum")
    assert said == other


def test_the_official_form_and_the_place(exact, tmp_path):
    stats(small_config(), tmp_path)
    stats(small_config(**{"stats.output": str(tmp_path / "new" / "stat.pt")}), tmp_path)
    official = torch.load(tmp_path / "new" / "stat.pt", weights_only=True)
    ours = read_statistics(tmp_path / "statistics.npz", 4, 16)
    np.testing.assert_array_equal(official["mean"].numpy().transpose(1, 2, 0), ours.mean)
    np.testing.assert_array_equal(official["var"].numpy().transpose(1, 2, 0), ours.variance)


def test_a_damaged_image_does_not_count_and_its_substitute_counts_once(monkeypatch, tmp_path):
    sources = {True: images_of(Memory(bad=(4, 7))), False: images_of(Memory())}
    config = small_config(**{"data.image_size": 16, "decoder.patch_size": 4})

    def encode(graph, parameters, image):
        return to_unit(image).reshape(-1, 4, 4, 48)[..., :16]

    monkeypatch.setattr(codec, "encode", encode)
    found = {}
    for damaged, source in sources.items():
        monkeypatch.setattr(data, "open_source", lambda config, split, source=source: source)
        stats(config, tmp_path / str(damaged))
        found[damaged] = read_statistics(tmp_path / str(damaged) / "statistics.npz", 4, 16)
    assert (found[True].count, found[False].count) == (10, 12)
    assert json.loads(found[True].provenance)["damaged"] == 2
    kept = [sources[False][i]["image"] / np.float32(255) for i in range(12) if i not in (4, 7)]
    latents = np.stack(kept).reshape(-1, 4, 4, 48)[..., :16]
    np.testing.assert_allclose(found[True].mean, latents.mean(0), atol=1e-6)
    np.testing.assert_allclose(found[True].variance, latents.var(0), atol=1e-6)
    assert np.abs(found[True].mean - found[False].mean).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, r"encoder_checksum: got \d+; expected \d+"),
        (
            {"encoder.image_mean": (0.5, 0.5, 0.5)},
            r"encoder\.image_mean: got \[0\.485, .*; expected \[0\.5, ",
        ),
        ({"precision": "bf16"}, "precision: got 'fp32'; expected 'bf16'"),
    ],
)
def test_a_partial_file_of_other_settings_is_refused(
    changes, message, exact, monkeypatch, tmp_path
):
    killed(monkeypatch, small_config(**{"stats.save_every": 2}), tmp_path, saves=1)
    with pytest.raises(ConfigError, match=message) as caught:
        stats(small_config(**changes), tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / PARTIAL}: ")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [PARTIAL]


def test_a_partial_file_of_november_2026_is_read(exact, monkeypatch, tmp_path):
    """Its sums had other names; the job that continues from it gives every bit."""
    config = small_config(**{"stats.save_every": 2})
    stats(config, tmp_path / "whole")
    killed(monkeypatch, config, tmp_path / "run", saves=1)
    old = {"num_invalid": "strange", "sum_q": "value", "sum_aa": "high", "sum_ab": "mixed"}
    old["sum_bb"] = "low"
    with np.load(tmp_path / "run" / PARTIAL) as file:
        arrays = {old.get(name, name): array for name, array in file.items()}
    assert {*old.values()} < arrays.keys()
    np.savez(tmp_path / "run" / PARTIAL, **arrays)
    stats(config, tmp_path / "run")
    ours, wanted = (tmp_path / name / "statistics.npz" for name in ("run", "whole"))
    assert ours.read_bytes() == wanted.read_bytes()


@pytest.mark.parametrize("cut", [0, 10, 3000, -200])
def test_a_damaged_partial_file_is_refused(cut, exact, monkeypatch, tmp_path):
    killed(monkeypatch, small_config(**{"stats.save_every": 2}), tmp_path, saves=1)
    content = (tmp_path / PARTIAL).read_bytes()
    (tmp_path / PARTIAL).write_bytes(content[:cut])
    with pytest.raises(ConfigError, match=r"delete it to start over$") as caught:
        stats(small_config(), tmp_path)
    assert "\n" not in str(caught.value)


def test_latents_that_are_not_finite_stop_the_job(exact, monkeypatch, tmp_path):
    monkeypatch.setattr(codec, "encode", lambda *arguments: encode(*arguments) / 0.0)
    with pytest.raises(ConfigError, match=r"or not finite in the first 16 images") as caught:
        stats(small_config(**{"stats.save_every": 2}), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_file_that_could_not_be_written_is_refused_first(tmp_path):
    (tmp_path / "file").touch()
    config = small_config(**{"stats.output": str(tmp_path / "file" / "x.npz")})
    with pytest.raises(ConfigError, match=r"^stats\.output: got '.*/file/x\.npz'; expected a file"):
        stats(config, tmp_path / "workdir")
    assert not (tmp_path / "workdir").exists()


def test_other_suffixes_are_refused():
    with pytest.raises(ConfigError, match=r"^stats\.output: got 'x\.pth'; expected"):
        small_config(**{"stats.output": "x.pth"})


def test_two_processes_finish_what_one_began(monkeypatch, tmp_path):
    stats(small_config(**{"data.batch_size": 128}), tmp_path / "alone")
    ours = read_statistics(tmp_path / "alone" / "statistics.npz", 4, 16)
    changes = {"data.batch_size": 128, "encoder.depth": 2, "decoder.depth": 2}
    pair = tmp_path / "pair"
    config = small_config(**{"data.batch_size": 128, "stats.save_every": 2})
    killed(monkeypatch, config, pair, saves=1)
    wait(pair, start_pair(pair, changes, mode="stats"))
    theirs = read_statistics(pair / "statistics.npz", 4, 16)
    assert "continuing after 256 images" in log_of(pair, 0).read_text()
    assert theirs.count == 1024
    assert theirs.provenance == ours.provenance
    # Unequal in the last bits: matrix products of other shapes round otherwise.
    np.testing.assert_allclose(theirs.mean, ours.mean, atol=2e-6)
    np.testing.assert_allclose(theirs.variance, ours.variance, atol=2e-6)
    assert [path.name for path in pair.iterdir()] == ["statistics.npz"]
