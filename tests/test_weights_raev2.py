"""What a file of a DiT^DH of RAEv2 does not tell: in its header, asked for, or said."""

import dataclasses
import sys

import pytest
from support.golden_files import GOLDEN
from support.small_ddt import SMALL, awake_ddt

from rae_dit.api import load_ddt
from rae_dit.weights.__main__ import main
from rae_dit.weights.header import ddt_facts, read_header
from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.official import export_ddt
from rae_dit.weights.tensor_file import save_tensors

TOKENS = {"conditioning": "tokens", "use_qknorm": True, "use_pos_embed": False}


def save(path, *, header=True, without=(), **changes):
    """Writes an exported network, with its header or a part of it."""
    ddt = awake_ddt(**changes)
    facts = {k: v for k, v in ddt_facts(ddt.architecture).items() if k not in without}
    save_tensors(path, export_ddt(ddt), {"ddt": facts} if header else {})
    return path


@pytest.mark.parametrize("prediction", ["v", "x"])
@pytest.mark.parametrize("changes", [{}, TOKENS, TOKENS | {"base_depth": 1}])
def test_the_header_tells_what_the_outputs_are(changes, prediction, tmp_path, caplog):
    path = save(tmp_path / "a.safetensors", prediction=prediction, **changes)
    found = load_ddt(path).architecture
    assert found == dataclasses.replace(SMALL, prediction=prediction, **changes)
    assert "prediction" not in caplog.text


def test_without_a_header_names_tell_where_one_network_has_them(tmp_path, caplog):
    plain = save(tmp_path / "a.safetensors", header=False)
    assert load_ddt(plain).architecture.prediction == "v"
    assert load_ddt(plain, prediction="x").architecture.prediction == "x"
    two = save(tmp_path / "b.safetensors", header=False, base_depth=1, **TOKENS)
    assert load_ddt(two, base_depth=1).architecture.prediction == "x"
    assert load_ddt(two, base_depth=1, prediction="v").architecture.prediction == "v"
    assert "prediction" not in caplog.text
    one = save(tmp_path / "c.safetensors", header=False, **TOKENS)
    with pytest.raises(WeightsError, match=r"prediction: got none; expected 'v' or 'x': .* one he"):
        load_ddt(one)
    assert load_ddt(one, prediction="v").architecture.prediction == "v"


def test_a_header_of_before_is_read_and_the_guess_is_said(tmp_path, caplog):
    path = save(tmp_path / "a.safetensors", without=("prediction",))
    assert load_ddt(path).architecture == SMALL
    assert "prediction is not in the header: taking 'v'" in caplog.text
    caplog.clear()
    assert load_ddt(path, prediction="x").architecture.prediction == "x"
    assert not caplog.text
    told = save(tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match=r"prediction: got x; expected v, which "):
        load_ddt(told, prediction="x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_depth": 1}, "base_depth: got 1; expected 0 with conditioning 'adaln'"),
        (TOKENS | {"use_pos_embed": True}, "use_pos_embed: got True; expected False with"),
        (TOKENS | {"use_qknorm": False}, "use_qknorm: got False; expected True with"),
        (TOKENS | {"use_rope": False}, "use_rope: got False; expected True with conditioning 't"),
        (TOKENS | {"use_rmsnorm": False}, "use_rmsnorm: got False; expected True with"),
        (TOKENS | {"use_swiglu": False}, "use_swiglu: got False; expected True with"),
    ],
)
def test_a_network_without_official_names_is_not_exported(changes, message):
    with pytest.raises(WeightsError, match=message) as caught:
        export_ddt(awake_ddt(**changes))
    assert "\n" not in str(caught.value)


def test_the_command_line_takes_what_the_file_does_not_tell(monkeypatch, tmp_path):
    target = tmp_path / "a.safetensors"
    source = str(GOLDEN / "raev2" / "dit_default.pt")
    arguments = ["weights", "export-ddt", source, str(target), "--base-depth=2", "--prediction=v"]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    assert read_header(target)["ddt"]["base_depth"] == 2
    found = load_ddt(target).architecture
    assert (found.base_depth, found.prediction) == (2, "v")
