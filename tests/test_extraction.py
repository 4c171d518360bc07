"""The decoder of a stage-1 run goes out in every form, and comes back the same."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from support.golden_files import GOLDEN
from support.small_run import assert_trees_equal, host, small_config

import rae_dit
from rae_dit.api import load_decoder
from rae_dit.checkpoint.manager import Checkpoints, restore_ema
from rae_dit.config import Config, ConfigError, to_dict
from rae_dit.sampling import codec
from rae_dit.setup import weights
from rae_dit.setup.run import make_program, open_run
from rae_dit.storage.files import write_json
from rae_dit.training.run import initial_state
from rae_dit.training.sharding import make_mesh
from rae_dit.weights.__main__ import main

SMALL = {"objective": "reconstruction", "encoder.depth": 1, "decoder.depth": 1}


def export(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["weights", *map(str, arguments)])
    main()


def parameters(module: nnx.Module) -> dict:
    return host(nnx.to_pure_dict(nnx.state(module)))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A stage-1 run, as far as its files go: its parameters and their EMA differ."""
    workdir = tmp_path_factory.mktemp("stage1") / "run"
    save_untrained(small_config(**SMALL), workdir)
    return workdir


def ema_of(run: Path) -> dict:
    program = make_program(small_config(**SMALL), make_mesh(1))
    return host(restore_ema(run, program.abstract.ema))


@pytest.mark.parametrize("name", ["decoder.pt", "deep/er/decoder.safetensors"])
def test_the_official_form_is_the_ema_and_comes_back(name, run, monkeypatch, tmp_path):
    export(monkeypatch, "export-decoder", run, tmp_path / name)
    decoder = load_decoder(tmp_path / name)
    assert_trees_equal(parameters(decoder), ema_of(run))
    direct = load_decoder(run)
    assert_trees_equal(parameters(direct), ema_of(run))
    config = json.loads(((tmp_path / name).parent / "config.json").read_text())
    assert config["decoder_num_attention_heads"] == 2  # which no tensor tells
    # Twice the same is fine; something else there is not overwritten.
    export(monkeypatch, "export-decoder", run, tmp_path / name)
    other = GOLDEN / "rae_mae_decoder"
    with pytest.raises(SystemExit) as end:
        export(monkeypatch, "export-decoder", other, (tmp_path / name).parent / "other.pt")
    assert end.value.code == 2
    assert_trees_equal(parameters(load_decoder(tmp_path / name)), ema_of(run))


def test_stage_2_takes_either_form_by_one_field(run, monkeypatch, tmp_path):
    export(monkeypatch, "export-decoder", run, tmp_path / "decoder.pt")
    fields = {"decoder.checkpoint": run, "decoder.pretrained": tmp_path / "decoder.pt"}
    latents = jax.random.normal(jax.random.key(0), (2, 4, 4, 16))
    images = []
    for field, value in fields.items():
        config = small_config(**{"encoder.depth": 1, "decoder.depth": 1, field: str(value)})
        rae = weights.place_rae(config, make_mesh(1), decoder=True)
        images.append(codec.decode(*rae, latents))
        assert_trees_equal(rae.parameters["decoder"], ema_of(run))
    np.testing.assert_array_equal(*images)


def test_a_run_s_decoder_goes_with_an_encoder_of_others(run):
    # Its encoder is small and DINOv2-like; the golden one has other widths, which is told.
    with pytest.raises(ValueError, match=r"got one of 4x4 tokens of width 16;"):
        rae_dit.load_rae(encoder=GOLDEN / "rae_dinov2_encoder", decoder=run)


def test_a_diffusers_directory_of_a_run(monkeypatch, tmp_path):
    # diffusers fixes heads of 64, a table of 37 x 37 and a grid of 16 x 16: as large as it must be.
    sizes = {
        "encoder.hidden_size": 64,
        "encoder.num_heads": 1,
        "encoder.num_registers": 4,
        "encoder.position_grid": 37,
        "encoder.input_size": 32,
        "data.image_size": 32,
        "flow.shift_base": 4096,
    }
    config = small_config(**(SMALL | sizes))
    run = tmp_path / "run"
    save_untrained(config, run)
    export(monkeypatch, "export-diffusers", tmp_path / "diffusers", run)
    ours, theirs = rae_dit.load_rae(run), rae_dit.load_rae(tmp_path / "diffusers")
    image = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(ours.encode(image), theirs.encode(image))
    assert ours.decoder.architecture == theirs.decoder.architecture
    assert_trees_equal(parameters(theirs.decoder), parameters(load_decoder(run)))


def save_untrained(config: Config, run: Path) -> None:
    """The checkpoint of a run that took no step: what costs the time is compiling one."""
    state = make_program(config, make_mesh(1)).create()
    ema = jax.tree.map(lambda leaf: leaf / 2, state.params)
    ema["position"] = state.params["position"]  # diffusers computes it
    state = dataclasses.replace(state, ema=ema)
    write_json(run / "config.json", to_dict(config))
    with Checkpoints(run / "checkpoints", save_every=1, keep_last=1, keep_every=None) as kept:
        kept.save(1, state, {"step": 1})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export-diffusers", "x"], "RUN: got none; expected a run, or --encoder and --decoder"),
        (
            ["export-diffusers", "x", "RUN", "--decoder=y"],
            "RUN: got parts besides; expected one or the other",
        ),
        (["export-diffusers", "x", "RUN"], "diffusers' AutoencoderRAE would build a different RAE"),
        (["export-decoder", "nowhere", "x.pt"], "There is no file or directory nowhere"),
        (
            ["export-decoder", "RUN", "x.onnx"],
            "x.onnx: got '.onnx'; expected a name in .pt or .safetensors",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, message, run, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    given = [str(run) if argument == "RUN" else argument for argument in arguments]
    with pytest.raises(SystemExit) as end:
        export(monkeypatch, *given)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_objective_has_no_decoder(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    write_json(tmp_path / "config.json", to_dict(small_config()))
    with pytest.raises(ConfigError, match="objective 'flow_matching'; a decoder is that of"):
        load_decoder(tmp_path)


@pytest.mark.parametrize("field", ["decoder.checkpoint", "decoder.pretrained"])
def test_stage_1_starts_from_a_decoder(field, run, monkeypatch, tmp_path):
    source = run
    if field == "decoder.pretrained":
        source = tmp_path / "decoder.pt"
        export(monkeypatch, "export-decoder", run, source)
    config = small_config(**SMALL, **{field: str(source)})
    mesh = make_mesh(1)
    state = initial_state(open_run(config, mesh))
    assert_trees_equal(state.params, ema_of(run))
    assert_trees_equal(state.ema, ema_of(run))
    assert int(state.step) == 0
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(state.ema), strict=True):
        pointers = {leaf.addressable_shards[0].data.unsafe_buffer_pointer() for leaf in (a, b)}
        assert len(pointers) == 2  # a step donates both
        assert a.sharding == b.sharding


def test_a_run_is_judged_by_its_own_decoder_and_not_by_what_it_started_from(run, tmp_path):
    config = small_config(**SMALL, **{"decoder.checkpoint": str(run)})
    before = weights.with_own_decoder(config, tmp_path)
    assert before.decoder.checkpoint == str(run)  # nothing trained yet
    nowhere = weights.with_own_decoder(small_config(), tmp_path).decoder
    assert nowhere.checkpoint == str(tmp_path)  # which will say that it has none
    save_untrained(config, tmp_path)
    assert weights.with_own_decoder(config, tmp_path).decoder.checkpoint == str(tmp_path)
    stage2 = small_config(**{"decoder.checkpoint": str(run)})
    assert weights.with_own_decoder(stage2, tmp_path) == stage2
    named = small_config(**SMALL, **{"decoder.pretrained": "x"})
    own = weights.with_own_decoder(named, tmp_path).decoder
    assert (own.pretrained, own.checkpoint) == ("", str(tmp_path))
