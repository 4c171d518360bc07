"""Comparisons of precisions: the table, the distance of curves, and runs that are equal else."""

import argparse
import dataclasses
import json
import sys

import numpy as np
import pytest
from PIL import Image

from launch.benchmarks import precision_curves, precision_on_digits
from launch.benchmarks.digits import read_lines

NAMES = ("class_accuracy_unguided", "class_accuracy_guided", "frechet_unguided", "frechet_guided")
FLAGS = ("encoder.checkpoint", "encoder.statistics", "decoder.checkpoint", "seed")


def _line(trained: str, seed: int, frechet: float) -> dict:
    scores = dict.fromkeys(NAMES, 0.5) | {"frechet_unguided": frechet}
    return {
        "trained": trained,
        "seed": seed,
        "train_loss": 0.25,
        "val_ema/loss": 0.125,
        "sampled": {"bf16": scores, "fp8": scores | {"class_accuracy_guided": 1.0}},
    }


def test_table_has_a_row_for_each_training_and_sampling():
    lines = [_line("bf16", 0, 1.0), _line("fp8", 0, 7.0), _line("bf16", 1, 3.0)]
    rows = precision_on_digits.table(lines).splitlines()[2:]
    half = "0.500 ± 0.000"
    losses = "0.2500 ± 0.0000 | 0.1250 ± 0.0000"
    # Of 1 and 3: mean 2, standard deviation sqrt(2).
    assert rows == [
        f"| bf16 | bf16 | 2 | {losses} | {half} | {half} | 2.000 ± 1.414 | {half} |",
        f"| bf16 | fp8 | 2 | {losses} | {half} | 1.000 ± 0.000 | 2.000 ± 1.414 | {half} |",
        "| fp8 | bf16 | 1 | 0.2500 | 0.1250 | 0.500 | 0.500 | 7.000 | 0.500 |",
        "| fp8 | fp8 | 1 | 0.2500 | 0.1250 | 0.500 | 1.000 | 7.000 | 0.500 |",
    ]


def test_does_what_is_left(tmp_path, monkeypatch, capsys):
    lines = [_line("bf16", 0, 1.0), _line("fp8", 1, 1.0)]
    (tmp_path / "precision.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = []
    monkeypatch.setattr(precision_on_digits, "run_here", lambda wanted, *_: asked.extend(wanted))
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path), "--in_process", "--seeds", "0", "1"])
    precision_on_digits.main()
    assert asked == [("fp8", 0), ("bf16", 1)]
    assert len(read_lines(tmp_path / "precision.jsonl")) == 2
    assert capsys.readouterr().out.count("\n") == 6


def test_runs_are_equal_but_for_their_precision(tmp_path):
    options = argparse.Namespace(steps=None, samples=None, work=tmp_path)
    frozen = [f"--config.{name}=/a/{name}" for name in FLAGS]
    half, eighth = (
        precision_on_digits.config_of(name, 3, frozen, options) for name in ("bf16", "fp8")
    )
    assert half != eighth == dataclasses.replace(half, precision="fp8")
    assert (half.seed, half.encoder.checkpoint) == (3, "/a/encoder.checkpoint")
    assert half.optim.max_steps == half.optim.decay_end_step == 4000


def test_distance_of_curves(tmp_path):
    first = np.linspace(2.0, 1.0, 200)
    losses = {"bf16": first, "fp8": 1.02 * first, "other seed": first + 0.1}
    found = precision_curves.draw(tmp_path / "curves.png", losses, "title")
    assert found[0].startswith("fp8: mean loss of the last 100 steps 1.27")
    assert found[0].endswith("+2.000%; of single steps median 2.00%, largest 2.00%")
    assert "largest 10.00%" in found[1]  # 0.1 of 1.0
    assert Image.open(tmp_path / "curves.png").size[0] > 600
    apart = precision_curves.difference(losses["fp8"], first, 5)
    assert apart == pytest.approx(np.full(200, 0.02))
