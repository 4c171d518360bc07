"""Weights are refused that were made for something else, where no shape tells."""

import dataclasses
import json
import sys
import tarfile

import numpy as np
import pytest
from support.golden_files import GOLDEN
from support.small_run import small_config

from rae_dit.api import decoder_pixels_of, load_rae
from rae_dit.config import ConfigError
from rae_dit.setup import pretrained, weights
from rae_dit.setup.weights import check_run, statistics_leaves
from rae_dit.training.sharding import make_mesh
from rae_dit.weights.__main__ import main
from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.statistics import write_statistics
from rae_dit.workdir import read_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A stage-1 run whose decoder gives images in [0, 1]."""
    directory = tmp_path_factory.mktemp("runs")
    with tarfile.open(GOLDEN / "run_c46889a" / "stage1.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    path = directory / "stage1" / "config.json"
    values = json.loads(path.read_text())
    values["decoder"]["pixels"] = "unit"
    path.write_text(json.dumps(values))
    return directory / "stage1"


def test_a_decoder_of_other_pixels_is_refused(run, tmp_path, monkeypatch):
    exported = tmp_path / "decoder.pt"
    monkeypatch.setattr(sys, "argv", ["weights", "export-decoder", str(run), str(exported)])
    main()
    config = read_config(run)
    for source in (run, exported):
        assert decoder_pixels_of(source) == "unit"
        with pytest.raises(WeightsError, match=r"decoder_pixels: got 'normalized'; expected 'unit"):
            load_rae(encoder="not read", decoder=source, decoder_pixels="normalized")
    assert decoder_pixels_of(GOLDEN / "rae_mae_decoder") is None

    def asking(pixels, **origin):
        section = dataclasses.replace(config.decoder, pixels=pixels, **origin)
        return dataclasses.replace(config, decoder=section)

    message = r"decoder.pixels: got 'normalized'; expected 'unit', "
    with pytest.raises(ConfigError, match=message):
        weights.place_decoder(asking("normalized", checkpoint=str(run)), make_mesh(1))
    with pytest.raises(ConfigError, match=message):
        pretrained.pretrained_decoder(asking("normalized", pretrained=str(exported)))
    pretrained.pretrained_decoder(asking("unit", pretrained=str(exported)))


def test_a_run_is_used_as_it_was_trained(run):
    config = read_config(run)
    check_run(config, run, "flow.prediction", "ddt.num_heads", "decoder.pixels")
    flow = dataclasses.replace(config.flow, prediction="x")
    with pytest.raises(ConfigError, match=r"flow.prediction: got 'x'; expected 'v', with which "):
        check_run(dataclasses.replace(config, flow=flow), run / "checkpoints", "flow.prediction")
    check_run(config, GOLDEN, "flow.prediction")  # no run: nothing to compare with


TOKENS = {"encoder.family": "dinov3", "encoder.position_grid": 0}
READ_OUT = {"encoder.layers": (0, 1), "encoder.add_mean": True}


@pytest.mark.parametrize(
    ("of", "asked", "message"),
    [
        ({}, {"encoder.layers": (0, 1)}, r"encoder.layers: got \[1\] in .*; expected \[0, 1\]"),
        ({"encoder.layers": (1,)}, {}, None),
        (READ_OUT, READ_OUT, None),
        (READ_OUT, READ_OUT | {"encoder.add_mean": False}, r"encoder.add_mean: got True"),
        (READ_OUT, READ_OUT | TOKENS, r"encoder.family: got 'dinov2' in .*; expected 'dinov3'"),
        (None, {"encoder.add_mean": True}, r"encoder.add_mean: got False in "),  # an older file
        ("not JSON", READ_OUT, None),
    ],
)
def test_statistics_of_another_read_out_are_refused(of, asked, message, tmp_path):
    config = small_config(**{"encoder.depth": 2} | asked)
    fields = dataclasses.asdict(
        small_config(**{"encoder.depth": 2} | (of if isinstance(of, dict) else {})).encoder
    )
    if of is None:
        del fields["layers"], fields["add_mean"]
    text = of if of == "not JSON" else json.dumps({"encoder": fields})
    grid, width = weights.latent_grid(config), config.encoder.hidden_size
    ones = np.ones((grid, grid, width), np.float32)
    write_statistics(tmp_path / "s.npz", mean=ones, variance=ones, count=3, provenance=text)
    if message is None:
        assert statistics_leaves(tmp_path / "s.npz", config)
        return
    with pytest.raises(WeightsError, match=message) as caught:
        statistics_leaves(tmp_path / "s.npz", config)
    assert "\n" not in str(caught.value)
