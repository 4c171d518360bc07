"""plot_scaling.py finds the straight lines and shares that are in the measurements."""

import json
from pathlib import Path

import pytest

from launch.benchmarks import plot_scaling
from launch.benchmarks.measure import ROOT

MEASURED = ROOT / "docs" / "measured" / "h100_2026-11-26.jsonl"


def line(name: str, **values: float) -> str:
    usual = {"part": "train", "devices": 1, "tflops_per_device": 400.0, "images_per_second": 1.0}
    return json.dumps({"measurement": name} | usual | values)


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    lines = [
        *(line(f"batch {batch}", batch=batch, ms=20.0 + 2 * batch) for batch in (64, 16, 32)),
        line("train", batch=128, ms=20.0 + 2 * 128),
        *(line(f"depth {depth}", batch=64, ms=148 - 3.0 * (28 - depth)) for depth in (7, 14)),
        line("512 px", batch=32, ms=1.0, tflops_per_device=300.0),
        line("one of two", batch=128, images_per_second=100.0),
        line("fsdp", batch=256, images_per_second=180.0, devices=2),
        line("small, one of two", batch=128, images_per_second=200.0),
        line("small, data parallel", batch=256, images_per_second=390.0, devices=2),
        json.dumps({"measurement": "sample", "part": "sample", "ms": 1.0}),
        json.dumps({"measurement": "train", "status": 0, "seconds": 1.0}),
    ]
    path = tmp_path / "measured.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_lines_and_shares(measured: Path, tmp_path: Path) -> None:
    picture = tmp_path / "scaling.png"
    assert plot_scaling.draw(picture, plot_scaling.read(measured)) == [
        "images: 20.0 ms + 2.00 ms x images, at most 0.0% from the points",
        "blocks: 64.0 ms + 3.00 ms x blocks, at most 0.0% from the points",
        "256 px, 128 images: 400.0 model TFLOP/s",
        "512 px, 32 images: 300.0 model TFLOP/s",
        "one GPU: 100.0 images/s per GPU, %",
        "XL: two, FSDP: 90.0 images/s per GPU, %",
        "S: two, data parallel: 97.5 images/s per GPU, %",
    ]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_every_training_step_measured_is_on_the_performance_page() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    found = plot_scaling.read(MEASURED)
    assert len(found) == 15
    for name, values in found.items():
        assert f"| {values['batch']} | {values['ms']:.1f} |" in page, name
