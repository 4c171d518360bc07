r"""Images per second of the loader from every kind of file, beside a torch DataLoader with PIL.

    python launch/benchmarks/bench_loader.py [--workers 0 1 16] [--loaders folder parquet torch] \
        [--seconds 2] [--repeats 5] [--limit 150] [--output FILE]

All read the same JPEGs of 500 x 375 pixels, cut out ADM's center crop of 256 pixels and yield
shuffled batches of bytes; torch reads them from the folder. Pixels are compared first. "parquet"
has row groups of 100 images, as on the Hugging Face Hub, and is shuffled by groups; "parquet by
records" is the same file in the order of before.

Each measurement runs in a process of its own on as many cores as it has workers (0 workers: one
core), so that images/s/core compares alike with alike; the loaders take turns. Beside it stands the
CPU time of an image, all processes together, which means something on a machine that others use,
too. Rounds over all of them are made until the next would end after the limit of seconds, at least
one; figures are medians. Then the ceiling: what the thread of the training loop does with a batch
of 1,024 that is ready, on the devices that JAX finds. Prints one line of JSON for each row. What is
not installed (torch; tensorflow_datasets) or does not run is left out, in such a line.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.benchmarks.loader_files import Places, installed, write_all
from launch.benchmarks.loader_rates import BY_RECORDS, TORCH, Setting, open_images, rate
from launch.benchmarks.plain_images import PlainFolder, write_jpegs
from rae_dit.storage.files import write_json

# Each picture has several names, because grain's shuffle searches 65536 / records places for each
# record: with the 512 of the default it would take longer than all else but pixels. And an epoch
# should be several rounds of the workers' batches, since torch's loader pauses between epochs.
NAMES = 8
FOLDER = "folder"
LOADERS = (FOLDER, "parquet", BY_RECORDS, "arrow", "tar", "tfds", TORCH)


def check_pixels(folder: Path, size: int, names: int = 1) -> int:
    """Compares every picture of the folder with the plain crop, and gives their number.

    Raises:
        AssertionError: they differ.
    """
    mine, plain = open_images((FOLDER, str(folder)), size), PlainFolder(folder, size)
    assert len(mine) == len(plain)
    for index in range(0, len(plain), names):
        record, (image, label) = mine[index], plain[index]
        np.testing.assert_array_equal(record["image"], image)
        assert record["label"] == label
    return len(plain) // names


def check_formats(places: Places, size: int) -> None:
    """Compares some records of the other files, all in one order, with each other."""
    sources = [open_images(place, size) for name, place in places.items() if name != FOLDER]
    for index in range(0, len(sources[0]), 1 + len(sources[0]) // 8):
        for source in sources[1:]:
            np.testing.assert_array_equal(source[index]["image"], sources[0][index]["image"])
            assert source[index]["label"] == sources[0][index]["label"]


def ceiling_of(batch_size: int, size: int) -> list[dict[str, Any]]:
    """Returns the rows of loader_ceiling.py; the process that runs this takes JAX's devices."""
    from launch.benchmarks.loader_ceiling import ceiling

    return ceiling(batch_size, size)


def measure(
    *,
    loaders: list[str],
    files: int,
    size: int,
    batch_size: int,
    workers: list[int],
    seconds: float,
    repeats: int,
    limit: float,
    ceiling_batch: int,
    names: int = NAMES,
) -> dict[str, Any]:
    """Measures every loader with each number of workers, in turns; prints each row.

    Args:
        loaders: names among LOADERS.
        files: how many pictures to make.
        size: side of the crop in pixels.
        batch_size: images per batch.
        workers: numbers of workers; 0 is a thread of the process itself, on one core.
        seconds: of one measurement.
        repeats: rounds, at most; the median of their measurements is taken.
        limit: seconds after which no round ends, if one has been made.
        ceiling_batch: images of the batch for `ceiling`; 0 for none.
        names: of each picture.

    Returns:
        For JSON: where and with what, and the rows.
    """
    spawn = multiprocessing.get_context("spawn")
    cores = sorted(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []
    begun = time.monotonic()

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)

    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "images"
        write_jpegs(folder, files, names)
        compared = check_pixels(folder, size, names)
        places, left_out = write_all(folder, Path(work))
        check_formats(places, size)
        places |= {BY_RECORDS: places["parquet"]}
        if installed("torch"):
            places |= {TORCH: places[FOLDER]}
        else:
            left_out |= {TORCH: "torch not installed"}
        for name in loaders:
            if name in left_out:
                add({"loader": name, "left_out": left_out[name]})
        present = [name for name in loaders if name in places]
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        failed: dict[tuple[str, int], str] = {}
        prepared, made = time.monotonic(), 0
        while made < repeats:
            now = time.monotonic()
            if made and now - begun + (now - prepared) / made > limit:
                break
            for count, name in itertools.product(workers, present):
                if (name, count) in failed:
                    continue
                mine = cores[: max(1, count)]
                setting = Setting(name, places[name], count, mine, size, batch_size, seconds)
                try:
                    with ProcessPoolExecutor(1, spawn) as pool:
                        figures = pool.submit(rate, setting).result()
                    found.setdefault((name, count), []).append(figures)
                except Exception as error:  # /dev/shm is too small for so many workers
                    failed[name, count] = f"{type(error).__name__}: {error}"
            made += 1
        for count, name in itertools.product(workers, present):
            if (name, count) in failed:
                add({"loader": name, "workers": count, "left_out": failed[name, count]})
            else:
                add(summary(name, found, count, len(cores[: max(1, count)])))
    if ceiling_batch:
        with ProcessPoolExecutor(1, spawn) as pool:
            for row in pool.submit(ceiling_of, ceiling_batch, size).result():
                add(row)
    return {
        "identical_pixels": compared,
        "names_each": names,
        "image_size": size,
        "batch_size": batch_size,
        "seconds": seconds,
        "repeats": made,
        "python": platform.python_version(),
        "cores": len(cores),
        "rows": rows,
    }


def summary(
    name: str, found: dict[tuple[str, int], list[tuple[float, float]]], workers: int, cores: int
) -> dict[str, Any]:
    """Makes the row of a loader: medians of its figures, and of their ratios to two others."""
    figures = found[name, workers]
    rates, times = zip(*figures, strict=True)
    row: dict[str, Any] = {
        "loader": name,
        "workers": workers,
        "cores": cores,
        "images_per_second_per_core": round(statistics.median(rates) / cores, 1),
        "cpu_ms_per_image": round(statistics.median(times), 2),
    }
    for other in (FOLDER, TORCH):
        if (other, workers) in found and other != name:
            pairs = list(zip(figures, found[other, workers], strict=False))
            # Both above 1 where the loader is better.
            row[f"rate / {other}"] = round(statistics.median(a / b for (a, _), (b, _) in pairs), 3)
            row[f"{other} ms / ms"] = round(statistics.median(b / a for (_, a), (_, b) in pairs), 3)
    return row


def main() -> None:
    """Measures, by default with 0, 1, 2, 4, ... workers up to the cores."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--loaders", nargs="+", default=list(LOADERS), choices=LOADERS)
    parser.add_argument("--files", type=int, default=512)
    parser.add_argument("--names", type=int, default=NAMES, help="of each picture")
    parser.add_argument("--size", type=int, default=256, help="pixels")
    # A window of the order by groups has 10 groups of 100 rows then, and a batch takes 25 of each,
    # as it does with 1,024 images and more files.
    parser.add_argument("--batch_size", type=int, default=256)
    cores = len(os.sched_getaffinity(0))
    powers = [2**power for power in range(cores.bit_length())]
    parser.add_argument("--workers", type=int, nargs="+", default=[0, *powers])
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, at most")
    parser.add_argument(
        "--limit", type=float, default=150.0, help="seconds until the last round ends"
    )
    parser.add_argument("--ceiling_batch", type=int, default=1024, help="images; 0 for no ceiling")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = vars(parser.parse_args())
    output = options.pop("output")
    report = measure(**options)
    if output:
        write_json(output, report)


if __name__ == "__main__":
    main()
