"""A decoder whose positions the reference has trained: opened, used and exported.

golden/trajectories has the reference's decoder after four steps of its stage 1, and its images.
"""

import shutil
import sys

import numpy as np
import pytest
from support.golden_files import GOLDEN
from support.small_run import assert_trees_equal

import rae_dit
from rae_dit.weights.__main__ import main
from rae_dit.weights.mapping import parameters_of
from rae_dit.weights.tensor_file import open_tensors, save_tensors

ENCODER, START = GOLDEN / "rae_dinov2_encoder", GOLDEN / "rae_dinov2_decoder"
POSITION = "decoder_pos_embed"


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDEN / "trajectories" / "trajectory_stage1.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def trained(recorded, tmp_path_factory):
    """The official directory of the decoder after four steps."""
    start = open_tensors(START / "model.pt")
    tensors = {name: start[name] + recorded[f"change_4/decoder/{name}"] for name in start}
    assert np.abs(recorded[f"change_4/decoder/{POSITION}"]).max() > 5e-4
    directory = tmp_path_factory.mktemp("trained")
    shutil.copy(START / "config.json", directory)
    save_tensors(directory / "model.pt", tensors)
    return directory


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["weights", *map(str, arguments)])
    main()


def distance(decoder, recorded):
    """Largest distance of our image, in units of 1/255, from the reference's in 8 bits."""
    rae = rae_dit.load_rae(encoder=ENCODER, decoder=decoder)
    image = np.asarray(rae.decode_tokens(recorded["clean_tokens"][3]))
    theirs = recorded["fake"][3].transpose(0, 2, 3, 1).astype(np.float32)
    return np.abs(255 * np.clip(image, 0, 1) - theirs).max()


def test_it_gives_the_reference_s_image(trained, recorded, tmp_path, caplog):
    caplog.set_level("INFO")
    assert distance(trained, recorded) < 0.5 + 1e-3  # rounding to 8 bits, and ours
    assert "from sines and cosines" in caplog.text
    # With the positions of before, everything else the same, it would not.
    shutil.copytree(trained, tmp_path / "computed")
    tensors = dict(open_tensors(trained / "model.pt"))
    tensors[POSITION] = open_tensors(START / "model.pt")[POSITION]
    save_tensors(tmp_path / "computed" / "model.pt", tensors)
    assert distance(tmp_path / "computed", recorded) > 0.75


def test_it_survives_the_official_form(trained, tmp_path, monkeypatch):
    run(monkeypatch, "export-decoder", trained, tmp_path / "model.pt")
    before, after = open_tensors(trained / "model.pt"), open_tensors(tmp_path / "model.pt")
    assert set(before) == set(after)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    loaded = [
        parameters_of(rae_dit.load_rae(encoder=ENCODER, decoder=d)) for d in (trained, tmp_path)
    ]
    assert_trees_equal(*loaded)


def test_diffusers_is_refused_in_one_line_that_names_the_official_form(
    trained, tmp_path, monkeypatch, capsys
):
    target = tmp_path / "out"
    with pytest.raises(SystemExit):
        run(
            monkeypatch,
            "export-diffusers",
            target,
            f"--encoder={ENCODER}",
            f"--decoder={trained}",
        )
    (line,) = capsys.readouterr().err.splitlines()
    assert "decoder.position: got values up to" in line
    assert "export the decoder in the official form instead" in line
    assert not target.exists()
