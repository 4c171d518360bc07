"""The command line of rae_dit.weights."""

import sys

import numpy as np
import pytest
from support.golden_files import GOLDEN

from rae_dit.weights.__main__ import main
from rae_dit.weights.tensor_file import open_tensors


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["weights", *map(str, arguments)])
    main()


def test_inspect_lists_every_tensor(monkeypatch, capsys):
    run(monkeypatch, "inspect", GOLDEN / "ddt_default_weak.pt")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 71
    assert lines[-1].endswith("70 tensors, 221,332 numbers")
    assert "(11, 32)" in next(line for line in lines if line.startswith("y_embedder"))


@pytest.mark.parametrize(
    ("command", "source"),
    [("export-ddt", "ddt_default_weak.pt"), ("export-decoder", "rae_mae_decoder")],
)
def test_export_writes_the_official_form(command, source, monkeypatch, tmp_path):
    run(monkeypatch, command, GOLDEN / source, tmp_path / "out.safetensors")
    path = GOLDEN / source
    original = open_tensors(path / "model.pt" if path.is_dir() else path)
    written = open_tensors(tmp_path / "out.safetensors")
    assert set(written) == set(original)
    for name, tensor in original.items():
        np.testing.assert_allclose(written[name], tensor, atol=1e-6)


def test_a_directory_in_place_of_a_file_ends_in_one_line(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, "inspect", tmp_path)
    assert end.value.code == 1
    message = f"{tmp_path}: got an empty directory; expected one file of weights; name it\n"
    assert capsys.readouterr().err == message


def test_misfits_end_the_program_with_the_reason(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run(
            monkeypatch,
            "export-diffusers",
            tmp_path,
            f"--encoder={GOLDEN / 'rae_mae_encoder'}",
            f"--decoder={GOLDEN / 'rae_mae_decoder'}",
        )
    assert end.value.code == 1
    assert "diffusers' AutoencoderRAE would build a different RAE" in capsys.readouterr().err
