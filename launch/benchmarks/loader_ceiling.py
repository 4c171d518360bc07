"""What the thread of the training loop does with a batch that is ready: conversion and transfer."""

import statistics
import time
from typing import Any

import jax
import numpy as np

from rae_dit.data.transforms import to_float
from rae_dit.training.sharding import make_mesh, shard_batch


def ceiling(batch_size: int, size: int) -> list[dict[str, Any]]:
    """Times what the loop's thread does with a batch that is ready.

    Args:
        batch_size: images.
        size: side of an image in pixels.

    Returns:
        A row for floats made by the host, as before, and one for bytes: seconds until the thread
        goes on, until the batch is on the devices, and images/s by the slower.
    """
    mesh = make_mesh(1)
    images = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), np.uint8)
    rows = []
    for name, convert in (("floats", to_float), ("bytes", np.asarray)):
        returned, ready = [], []
        for _ in range(6):
            begun = time.perf_counter()
            placed = shard_batch({"image": convert(images)}, mesh)
            returned.append(time.perf_counter() - begun)
            jax.block_until_ready(placed)
            ready.append(time.perf_counter() - begun)
        host, device = statistics.median(returned[1:]), statistics.median(ready[1:])
        rows.append(
            {
                "ceiling": name,
                "batch_size": batch_size,
                "image_size": size,
                "devices": f"{mesh.size} x {jax.devices()[0].device_kind}",
                "host_seconds": round(host, 4),
                "seconds_until_there": round(device, 4),
                "images_per_second": round(batch_size / device, 1),
            }
        )
    return rows
