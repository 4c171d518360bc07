r"""Images per second of the loader from every kind of file, beside a torch DataLoader with PIL.

    python launch/benchmarks/bench_loader.py [--workers 0 1 16] [--loaders folder parquet torch] \
        [--seconds 5] [--repeats 5] [--output FILE]

All read the same JPEGs of 500 x 375 pixels, cut out ADM's center crop of 256 pixels and yield
shuffled batches of bytes; torch reads them from the folder. Pixels are compared first. "parquet"
has row groups of 100 images, as on the Hugging Face Hub, and is shuffled by groups; "parquet by
records" is the same file in the order of before.

Each measurement runs in a process of its own on as many cores as it has workers (0 workers: one
core), so that images/s/core compares alike with alike; the loaders take turns. Beside it stands the
CPU time of an image, all processes together, which means something on a machine that others use,
too. Then the ceiling: what the thread of the training loop does with a batch of 1,024 that is
ready, on the devices that JAX finds. Prints one line of JSON for each row. What is not installed
(torch; tensorflow_datasets) is left out, in such a line.
"""

import argparse
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

from launch.benchmarks.loader_files import Places, installed, write_all
from launch.benchmarks.plain_images import CLASSES, PlainFolder, cpu_seconds, write_jpegs
from rae_dit.data.pipeline import train_batches
from rae_dit.data.position import Shuffle
from rae_dit.data.readers import open_source
from rae_dit.storage.files import write_json

# Each picture has so many names, because grain's shuffle searches 65536 / records places for each
# record: with the 512 of the default it would take longer than all else but pixels.
NAMES = 8
TORCH, FOLDER, BY_RECORDS = "torch", "folder", "parquet by records"
LOADERS = (FOLDER, "parquet", BY_RECORDS, "arrow", "tar", "tfds", TORCH)


class Setting(NamedTuple):
    """One measurement: which loader, with how many workers, and on which cores."""

    loader: str
    source: tuple[str, str]  # data.source and path; torch reads the folder
    workers: int
    cores: list[int]
    size: int
    batch_size: int
    seconds: float


def open_images(source: tuple[str, str], size: int) -> Any:
    """Opens the files with rae_dit."""
    name, path = source
    return open_source(
        name,  # type: ignore[arg-type]  # one of those that loader_files writes
        path,
        split="train",
        image_size=size,
        num_classes=CLASSES,
        crop="adm_center",
        max_bad_share=0.0,
    )


def our_batches(setting: Setting) -> Iterator[int]:
    """Yields the number of images of each of rae_dit's batches."""
    shuffle: Shuffle = "records" if setting.loader == BY_RECORDS else "groups"
    stream = train_batches(
        open_images(setting.source, setting.size),
        batch_size=setting.batch_size,
        seed=0,
        start_step=0,
        num_workers=setting.workers,
        flip=False,
        shuffle=shuffle,
    )
    with stream:
        for batch in stream:
            yield len(batch["image"])


def torch_batches(setting: Setting) -> Iterator[int]:
    """Yields the number of images of each of torch's batches."""
    from torch.utils.data import DataLoader  # noqa: TID251 - what ours is measured against

    workers = setting.workers
    loader = DataLoader(
        PlainFolder(Path(setting.source[1]), setting.size), setting.batch_size, shuffle=True,
        num_workers=workers, persistent_workers=workers > 0, drop_last=True,
    )  # fmt: skip
    while True:
        for images, _ in loader:
            yield len(images)


def rate(setting: Setting) -> tuple[float, float]:
    """Images per second once the first batches are through, and CPU milliseconds per image.

    Runs in a process of its own.
    """
    os.sched_setaffinity(0, setting.cores)
    batches = torch_batches(setting) if setting.loader == TORCH else our_batches(setting)
    for _ in range(2 * max(1, setting.workers)):
        next(batches)
    images, begun, used = 0, time.perf_counter(), cpu_seconds()
    while time.perf_counter() - begun < setting.seconds:
        images += next(batches)
    elapsed, used = time.perf_counter() - begun, cpu_seconds() - used
    batches.close()
    return images / elapsed, 1000 * used / images


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
    ceiling_batch: int,
) -> dict[str, Any]:
    """Measures every loader with each number of workers, in turns; prints each row.

    Args:
        loaders: names among LOADERS.
        files: how many pictures to make.
        size: side of the crop in pixels.
        batch_size: images per batch.
        workers: numbers of workers; 0 is a thread of the process itself, on one core.
        seconds: of one measurement.
        repeats: measurements of which the median is taken.
        ceiling_batch: images of the batch for `ceiling`; 0 for none.

    Returns:
        For JSON: where and with what, and the rows.
    """
    spawn = multiprocessing.get_context("spawn")
    cores = sorted(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)

    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "images"
        write_jpegs(folder, files, NAMES)
        compared = check_pixels(folder, size, NAMES)
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
        names = [name for name in loaders if name in places]
        for count in workers:
            mine = cores[: max(1, count)]
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
            for _ in range(repeats):
                for name in names:
                    setting = Setting(name, places[name], count, mine, size, batch_size, seconds)
                    with ProcessPoolExecutor(1, spawn) as pool:
                        found[name].append(pool.submit(rate, setting).result())
            for name in names:
                add(summary(name, found, count, len(mine)))
    if ceiling_batch:
        with ProcessPoolExecutor(1, spawn) as pool:
            for row in pool.submit(ceiling_of, ceiling_batch, size).result():
                add(row)
    return {
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


def summary(
    name: str, found: dict[str, list[tuple[float, float]]], workers: int, cores: int
) -> dict[str, Any]:
    """Makes the row of a loader: medians of its figures, and of their ratios to two others."""
    rates, times = zip(*found[name], strict=True)
    row: dict[str, Any] = {
        "loader": name,
        "workers": workers,
        "cores": cores,
        "images_per_second_per_core": round(statistics.median(rates) / cores, 1),
        "cpu_ms_per_image": round(statistics.median(times), 2),
    }
    for other in (FOLDER, TORCH):
        if other in found and other != name:
            pairs = list(zip(found[name], found[other], strict=True))
            # Both above 1 where the loader is better.
            row[f"rate / {other}"] = round(statistics.median(a / b for (a, _), (b, _) in pairs), 3)
            row[f"{other} ms / ms"] = round(statistics.median(b / a for (_, a), (_, b) in pairs), 3)
    return row


def main() -> None:
    """Measures, by default with 0, 1, 2, 4, ... workers up to the cores."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--loaders", nargs="+", default=list(LOADERS), choices=LOADERS)
    parser.add_argument("--files", type=int, default=512)
    parser.add_argument("--size", type=int, default=256, help="pixels")
    # A window of the order by groups has 10 groups of 100 rows then, and a batch takes 25 of each,
    # as it does with 1,024 images and more files.
    parser.add_argument("--batch_size", type=int, default=256)
    cores = len(os.sched_getaffinity(0))
    powers = [2**power for power in range(cores.bit_length())]
    parser.add_argument("--workers", type=int, nargs="+", default=[0, *powers])
    parser.add_argument("--seconds", type=float, default=5.0, help="of one measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ceiling_batch", type=int, default=1024, help="images; 0 for no ceiling")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = vars(parser.parse_args())
    output = options.pop("output")
    report = measure(**options)
    if output:
        write_json(output, report)


if __name__ == "__main__":
    main()
