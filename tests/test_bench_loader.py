"""The comparison of loaders compares alike with alike."""

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.benchmarks import bench_loader, loader_files, loader_rates
from launch.benchmarks.bench_loader import check_formats, check_pixels, measure
from launch.benchmarks.loader_files import write_all
from launch.benchmarks.loader_rates import Setting
from launch.benchmarks.plain_images import HEIGHT, WIDTH, PlainFolder, cpu_seconds, write_jpegs


def test_pixels_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jpegs(tmp_path, 5)
    assert check_pixels(tmp_path, 256) == 5
    read = PlainFolder.__getitem__

    def one_off(self: PlainFolder, index: int) -> tuple[np.ndarray, int]:
        image, label = read(self, index)
        image[255, 255, 2] ^= index == 4
        return image, label

    monkeypatch.setattr(PlainFolder, "__getitem__", one_off)
    with pytest.raises(AssertionError):
        check_pixels(tmp_path, 256)


def test_every_picture_is_compared_once(tmp_path: Path) -> None:
    write_jpegs(tmp_path, 5, 3)
    assert len(PlainFolder(tmp_path, 256)) == 15
    assert check_pixels(tmp_path, 256, 3) == 5
    assert len({path.stat().st_ino for path in tmp_path.rglob("*.jpg")}) == 5


def burn(seconds: float) -> None:
    while time.process_time() < seconds:
        pass
    time.sleep(60)


def test_cpu_time_is_that_of_workers_too() -> None:
    worker = multiprocessing.get_context("spawn").Process(target=burn, args=(6,), daemon=True)
    before = cpu_seconds()
    worker.start()
    deadline = time.monotonic() + 100
    while cpu_seconds() - before < 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert 5 <= cpu_seconds() - before < 10
    worker.kill()
    worker.join()


def test_the_pictures_are_like_photographs(tmp_path: Path) -> None:
    write_jpegs(tmp_path, 4)
    paths = list(tmp_path.rglob("*.jpg"))
    assert len({path.parent for path in paths}) == 4
    for path in paths:
        assert 90_000 < path.stat().st_size < 130_000  # ImageNet: 110 kB
        image = np.asarray(Image.open(path), np.float32)
        assert image.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(np.diff(image, axis=1)).mean() < 0.5 * image.std()  # neighbours are alike


def test_every_kind_of_file_holds_the_same_pictures(tmp_path: Path) -> None:
    write_jpegs(tmp_path / "images", 12)
    places, left_out = write_all(tmp_path / "images", tmp_path)
    assert list(places) == ["folder", "parquet", "arrow", "tar", "tfds"]
    assert left_out == {}
    check_formats(places, 64)
    write_jpegs(tmp_path / "others", 13)
    (tmp_path / "other").mkdir()
    others, _ = write_all(tmp_path / "others", tmp_path / "other")
    with pytest.raises((AssertionError, IndexError)):
        check_formats(places | {"tar": others["tar"]}, 64)


def test_whole_rounds_of_the_workers_are_counted(monkeypatch) -> None:
    def rounds(setting: Setting) -> Iterator[int]:
        while True:
            time.sleep(0.2)
            yield from [10] * setting.workers

    monkeypatch.setattr(loader_rates, "our_batches", rounds)
    cores = sorted(os.sched_getaffinity(0))
    setting = Setting("folder", ("folder", ""), 4, cores, 8, 10, seconds=0.01)
    found, _ = loader_rates.rate(setting)
    assert 100 < found <= 200  # four batches of ten in 0.2 s; by the first alone it would be 50


def test_a_measurement_without_workers(monkeypatch, capsys) -> None:
    monkeypatch.setattr(loader_files, "installed", lambda name: "tensorflow" not in name)
    report = measure(
        loaders=["folder", "parquet", "tfds", "torch"],
        files=8,
        size=64,
        batch_size=4,
        workers=[0],
        seconds=0.1,
        repeats=3,
        limit=0,
        ceiling_batch=8,
    )
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == report["rows"]
    left_out, folder, parquet, torch, floats, as_bytes = printed
    assert left_out == {"loader": "tfds", "left_out": "tensorflow_datasets not installed"}
    assert [row["loader"] for row in (folder, parquet, torch)] == ["folder", "parquet", "torch"]
    for row in (folder, parquet, torch):
        assert (row["workers"], row["cores"]) == (0, 1)
        assert row["images_per_second_per_core"] > 0
        assert 0.1 < row["cpu_ms_per_image"] < 1000
    rate = "images_per_second_per_core"
    assert parquet["rate / folder"] == pytest.approx(parquet[rate] / folder[rate], rel=0.02)
    assert folder["rate / torch"] == pytest.approx(folder[rate] / torch[rate], rel=0.02)
    assert [row["ceiling"] for row in (floats, as_bytes)] == ["floats", "bytes"]
    assert (report["identical_pixels"], report["repeats"]) == (8, 1)  # the limit ended it


def test_what_does_not_run_is_a_row(monkeypatch, capsys) -> None:
    monkeypatch.setattr(loader_files, "installed", lambda name: False)
    monkeypatch.setattr(bench_loader, "rate", int)  # fails in the process
    sizes = {"files": 4, "size": 64, "batch_size": 4, "seconds": 0.1, "limit": 0}
    report = measure(loaders=["tar"], workers=[0], repeats=1, ceiling_batch=0, **sizes)
    (row,) = report["rows"]
    assert row["left_out"].startswith("TypeError: int() argument must be")
