r"""Images per second of the loader, beside a torch DataLoader with PIL that does the same.

    python launch/benchmarks/bench_loader.py [--workers 0 1 4 16] [--seconds 5] [--repeats 5] \
        [--output FILE]

Both read the same JPEG files of 500 x 375 pixels from a folder, cut out ADM's center crop of 256
pixels and yield shuffled batches of float32 in [0, 1]; their pixels are compared first. Each
measurement runs in a process of its own on as many cores as it has workers (0 workers: one core),
so that images/s/core compares alike with alike; the loaders take turns. Beside it stands the CPU
time of an image, all processes together, which means something on a machine that others use, too.
Without torch, ours is measured alone.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.benchmarks.plain_images import CLASSES, PlainFolder, cpu_seconds, write_jpegs
from rae_dit.data.pipeline import train_batches
from rae_dit.data.readers import open_source
from rae_dit.data.transforms import to_float
from rae_dit.storage.files import write_json

# Each picture has so many names, because grain's shuffle searches 65536 / records places for each
# record: with the 512 of the default it would take longer than all else but pixels.
NAMES = 32
OURS, TORCH = "ours", "torch"


def ours(folder: Path, size: int) -> Any:
    """Opens the folder with rae_dit."""
    return open_source(
        "folder",
        str(folder),
        split="train",
        image_size=size,
        num_classes=CLASSES,
        crop="adm_center",
        max_bad_share=0.0,
    )


def our_batches(folder: Path, size: int, batch_size: int, workers: int) -> Iterator[int]:
    """Yields the number of images of each of rae_dit's batches."""
    stream = train_batches(
        ours(folder, size),
        batch_size=batch_size,
        seed=0,
        start_step=0,
        num_workers=workers,
        flip=False,
    )
    with stream:
        for batch in stream:
            yield len(batch["image"])


def torch_batches(folder: Path, size: int, batch_size: int, workers: int) -> Iterator[int]:
    """Yields the number of images of each of torch's batches."""
    from torch.utils.data import DataLoader  # noqa: TID251 - what ours is measured against

    source = PlainFolder(folder, size)
    loader = DataLoader(
        source, batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0,
        drop_last=True,
    )  # fmt: skip
    while True:
        for images, _ in loader:
            yield len(images)


class Setting(NamedTuple):
    """One measurement: which loader, with how many workers, and on which cores."""

    name: str
    workers: int
    cores: list[int]
    folder: Path
    size: int
    batch_size: int
    seconds: float


def rate(setting: Setting) -> tuple[float, float]:
    """Images per second once the first batches are through, and CPU milliseconds per image.

    Runs in a process of its own.
    """
    os.sched_setaffinity(0, setting.cores)
    make = torch_batches if setting.name == TORCH else our_batches
    batches = make(setting.folder, setting.size, setting.batch_size, setting.workers)
    for _ in range(2 * max(1, setting.workers)):
        next(batches)
    images, begun, used = 0, time.perf_counter(), cpu_seconds()
    while time.perf_counter() - begun < setting.seconds:
        images += next(batches)
    elapsed, used = time.perf_counter() - begun, cpu_seconds() - used
    batches.close()
    return images / elapsed, 1000 * used / images


def check_pixels(folder: Path, size: int, names: int = 1) -> int:
    """Compares every picture of both, and gives their number.

    Raises:
        AssertionError: they differ.
    """
    mine, plain = ours(folder, size), PlainFolder(folder, size)
    assert len(mine) == len(plain)
    for index in range(0, len(plain), names):
        record, (image, label) = mine[index], plain[index]
        np.testing.assert_array_equal(to_float(record["image"]), image)
        assert record["label"] == label
    return len(plain) // names


def measure(
    *,
    files: int,
    size: int,
    batch_size: int,
    workers: list[int],
    seconds: float,
    repeats: int,
) -> dict[str, Any]:
    """Measures both loaders with each number of workers, in turns.

    Args:
        files: how many JPEGs to make.
        size: side of the crop in pixels.
        batch_size: images per batch.
        workers: numbers of workers; 0 is a thread of the process itself, on one core.
        seconds: of one measurement.
        repeats: measurements of which the median is taken.

    Returns:
        For JSON: where and with what, and for each number of workers the medians of each
        loader's images/s/core and CPU ms/image, and of ours over torch's, images and CPU time,
        where torch is installed.
    """
    names = [OURS]
    names += [TORCH] if importlib.util.find_spec("torch") else []
    cores = sorted(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    rows = []
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "images"
        write_jpegs(folder, files, NAMES)
        compared = check_pixels(folder, size, NAMES)
        for count in workers:
            mine = cores[: max(1, count)]
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
            for _ in range(repeats):
                for name in names:
                    setting = Setting(name, count, mine, folder, size, batch_size, seconds)
                    with ProcessPoolExecutor(1, spawn) as pool:
                        found[name].append(pool.submit(rate, setting).result())
            rows.append({"workers": count, "cores": len(mine)} | medians(found, len(mine)))
    return {
        "unit": "images/s/core, CPU ms/image",
        "identical_pixels": compared,
        "names_each": NAMES,
        "image_size": size,
        "batch_size": batch_size,
        "seconds": seconds,
        "repeats": repeats,
        "python": platform.python_version(),
        "cores": len(cores),
        "rows": rows,
    }


def medians(found: dict[str, list[tuple[float, float]]], cores: int) -> dict[str, float]:
    """Returns medians of images/s/core, of CPU ms/image, and of the ratios to torch."""
    row = {}
    for name, values in found.items():
        row[name] = round(statistics.median(rate for rate, _ in values) / cores, 1)
        row[f"{name}, ms"] = round(statistics.median(cpu for _, cpu in values), 2)
    for name in [name for name in found if name != TORCH and TORCH in found]:
        pairs = list(zip(found[name], found[TORCH], strict=True))
        row[f"{name} / {TORCH}"] = round(statistics.median(a / b for (a, _), (b, _) in pairs), 3)
        row[f"{name} / {TORCH}, ms"] = round(
            statistics.median(a / b for (_, a), (_, b) in pairs), 3
        )
    return row


def table(report: dict[str, Any]) -> str:
    """Formats the rows as Markdown."""
    names = list(report["rows"][0])
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in report["rows"]]
    return "\n".join(lines)


def main() -> None:
    """Measures, by default with 0, 1, 2, 4, ... workers up to the cores; prints table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=512)
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--batch_size", type=int, default=32)
    cores = len(os.sched_getaffinity(0))
    powers = [2**power for power in range(cores.bit_length())]
    parser.add_argument("--workers", type=int, nargs="+", default=[0, *powers])
    parser.add_argument("--seconds", type=float, default=5.0, help="of one measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = vars(parser.parse_args())
    output = options.pop("output")
    report = measure(**options)
    print(table(report))
    print(json.dumps(report))
    if output:
        write_json(output, report)


if __name__ == "__main__":
    main()
