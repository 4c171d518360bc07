"""Measurements of bench_loader.py: one loader with so many workers, in a process of its own."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from launch.benchmarks.plain_images import CLASSES, PlainFolder, cpu_seconds
from rae_dit.data.pipeline import train_batches
from rae_dit.data.position import Shuffle
from rae_dit.data.readers import open_source

TORCH, BY_RECORDS = "torch", "parquet by records"


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

    Runs in a process of its own. Workers deliver in turn, and each needs as long as all: what is
    counted are whole rounds of them, because the batches of a part of one come almost together.
    """
    os.sched_setaffinity(0, setting.cores)
    batches = torch_batches(setting) if setting.loader == TORCH else our_batches(setting)
    each_round = range(max(1, setting.workers))
    for _ in (*each_round, *each_round):
        next(batches)
    images, begun, used = 0, time.perf_counter(), cpu_seconds()
    while time.perf_counter() - begun < setting.seconds:
        images += sum(next(batches) for _ in each_round)
    elapsed, used = time.perf_counter() - begun, cpu_seconds() - used
    batches.close()
    return images / elapsed, 1000 * used / images
