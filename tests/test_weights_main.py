"""The command line of rae_dit.weights."""

import sys

import numpy as np
import pytest
from support.golden_files import GOLDEN

from rae_dit.weights.__main__ import main, run_and_target
from rae_dit.weights.config_file import refuse_other
from rae_dit.weights.errors import WeightsError
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
    assert end.value.code == 2
    message = (
        f"rae_dit: {tmp_path}: got an empty directory; expected one file of weights; name it\n"
    )
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
    assert end.value.code == 2
    assert "diffusers' AutoencoderRAE would build a different RAE" in capsys.readouterr().err


def test_a_run_and_a_target_are_told_apart_in_both_orders(tmp_path):
    run, target = str(tmp_path / "run"), str(tmp_path / "new")
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/config.json").touch()
    expected = (run, tmp_path / "new")
    assert run_and_target([run, target]) == run_and_target([target, run]) == expected
    assert run_and_target([run, f"{run}/new"]) == (run, tmp_path / "run/new")
    assert run_and_target(["absent", target])[0] == "absent"  # and load_rae says so
    with pytest.raises(WeightsError, match=r"got 3 paths; expected \[RUN\] TARGET"):
        run_and_target([run, target, "more"])


def test_a_config_of_something_else_is_not_replaced(tmp_path):
    path = tmp_path / "config.json"
    refuse_other(path, {"heads": (1, 2)})
    path.write_text('{"heads": [1, 2]}')
    refuse_other(path, {"heads": (1, 2)})
    with pytest.raises(
        WeightsError, match="got the config of something else; expected a new directory"
    ):
        refuse_other(path, {"heads": (1, 3)})
    path.write_text("{")
    with pytest.raises(WeightsError, match="expected JSON"):
        refuse_other(path, {"heads": (1, 3)})
