"""What four processes of two devices each do in tests/test_multihost_four.py.

Their devices are interleaved in the mesh, as those of hosts on a TPU's torus are. What tests
compare each process writes as JSON.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils

from rae_dit.checkpoint import restore
from rae_dit.checkpoint import steps as checkpoint_steps
from rae_dit.checkpoint.manager import CheckpointError, restore_ema
from rae_dit.config import ConfigError
from rae_dit.data import folder as folder_reader
from rae_dit.modes.evaluate import evaluate
from rae_dit.modes.reconstruct import open_images
from rae_dit.modes.sample import sample
from rae_dit.modes.train import train
from rae_dit.multihost import EndTogether, ProcessInfo, agreement, initialize, place
from rae_dit.multihost.sums import SumOverDevices
from rae_dit.sampling.image_directory import ImageDirectory
from rae_dit.setup import data, weights
from rae_dit.setup.evaluation import open_samples
from rae_dit.setup.models import abstract, make_ddt
from rae_dit.storage.places import checkpoint_path
from rae_dit.training.sharding import make_mesh, replicated
from support.small_run import small_config

SETTINGS: dict[str, Any] = {
    "encoder.depth": 1,
    "decoder.depth": 1,
    "ddt.depth": (1, 1),
    "optim.max_steps": 4,
    "checkpoint.save_every": 2,
    "checkpoint.keep_last": 10,
    "metrics.log_every": 1,
    "metrics.validate_every": 100,
    "metrics.validate_batches": 1,
    "sample.num_steps": 2,
    "sample.num_samples": 11,
    "sample.batch_size": 8,
    "evaluate.metrics": ("class_accuracy", "frechet", "precision", "recall"),
    "evaluate.num_samples": 11,
    "evaluate.batch_size": 3,
    "metrics.evaluate_samples": 11,
}
HIDDEN_SECONDS = 1.5


def interleaved(shape: tuple[int, ...], devices: list[Any], **options: object) -> np.ndarray:
    """First devices of all processes, then second ones."""
    return np.array(sorted(devices, key=lambda device: device.id % 2)).reshape(shape)


class Bytes:
    """Bytes of host arrays that go into the collectives that are watched."""

    def __init__(self) -> None:
        self.given = 0

    def watch(self, function):
        def counted(values, *rest, **options):
            on_host = [leaf for leaf in jax.tree.leaves(values) if not isinstance(leaf, jax.Array)]
            self.given += sum(np.asarray(leaf).nbytes for leaf in on_host)
            return function(values, *rest, **options)

        return counted


def gathered_by(work) -> int:
    """Bytes that `process_allgather` gets from this process while `work` runs."""
    seen, former = Bytes(), multihost_utils.process_allgather
    multihost_utils.process_allgather = seen.watch(former)
    try:
        work()
    finally:
        multihost_utils.process_allgather = former
    return seen.given


def message_of(error: type[Exception], work) -> str:
    try:
        work()
    except error as raised:
        return str(raised)
    return ""


def place_weights(me: int) -> dict[str, Any]:
    """A leaf of 1 MB, on all devices and split over them; then one that is another on process 2."""
    mesh = make_mesh(8)
    leaf = np.arange(2**18, dtype=np.float32).reshape(512, 512)
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "fsdp"))
    bytes_given = gathered_by(
        lambda: place({"a": leaf, "b": leaf}, {"a": replicated(mesh), "b": split})
    )
    placed = place({"a": leaf, "b": leaf}, {"a": replicated(mesh), "b": split})
    for array in placed.values():
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(shard.data, leaf[shard.index])
    other = leaf + (me == 2)
    refused = message_of(ConfigError, lambda: place({"a": leaf, "b": other}, replicated(mesh)))
    return {"place_bytes": bytes_given, "place_refused": refused}


def stale_listing(me: int, workdir: Path) -> dict[str, Any]:
    """Process 3 sees the newest step a while later than the others, then never."""
    config = small_config(**SETTINGS)
    like = weights.shapes(abstract(make_ddt, config), make_mesh(1))
    steps, kind = checkpoint_steps.finished_steps, type(checkpoint_path(workdir))
    exists = kind.exists
    until = time.monotonic() + HIDDEN_SECONDS

    def hidden(path: Path) -> bool:
        return me == 3 and path.name == "4" and time.monotonic() < until

    checkpoint_steps.finished_steps = lambda directory: steps(directory)[: -1 if me == 3 else None]
    kind.exists = lambda path: not hidden(path) and exists(path)
    reads, read_item = [], restore._read_item
    restore._read_item = lambda *rest: reads.append(1) or read_item(*rest)
    try:
        newest = restore_ema(workdir, like)
        chosen = restore_ema(workdir / "checkpoints" / "4", like)
        same = jax.tree.map(
            lambda a, b: np.array_equal(a.addressable_data(0), b.addressable_data(0)),
            newest,
            chosen,
        )
        until, agreement.VISIBLE_SECONDS = np.inf, 0.5
        refused = message_of(CheckpointError, lambda: restore_ema(workdir, like))
    finally:
        checkpoint_steps.finished_steps, kind.exists = steps, exists
        agreement.VISIBLE_SECONDS = 60.0
    return {
        "stale_is_newest": all(jax.tree.leaves(same)),
        "stale_refused": refused,
        "reads": len(reads),
    }


def list_data(images: Path) -> dict[str, Any]:
    """Counts the directories that this process lists to open a folder of images."""
    counted, former = [], folder_reader.os.scandir
    folder_reader.os.scandir = lambda path: counted.append(path) or former(path)
    changes = {"data.source": "folder", "data.path": str(images), "data.num_classes": 2}
    try:
        source = data.open_source(small_config(**SETTINGS, **changes), "train")
    finally:
        folder_reader.os.scandir = former
    three = small_config(**SETTINGS, **changes | {"data.num_classes": 3})
    refused = message_of(ConfigError, lambda: data.open_source(three, "train"))
    return {
        "listings": len(counted),
        "fingerprint": source.fingerprint,
        "record": np.asarray(source[3]["image"]).tolist(),
        "listing_refused": refused,
    }


def list_pictures(me: int, pictures: Path) -> dict[str, Any]:
    """Lists pictures twice on process 0; a process with a stale view of them takes its list."""
    counted, former = [], Path.iterdir

    def listed(path: Path):
        counted.append(path)
        return list(former(path))[: 1 if me == 3 else None]

    Path.iterdir = listed  # type: ignore[method-assign, assignment]
    changes = {"evaluate.samples": str(pictures), "reconstruct.path": str(pictures)}
    try:
        config = small_config(**SETTINGS | changes)
        stored, source = open_samples(config), open_images(config)
    finally:
        Path.iterdir = former  # type: ignore[method-assign]
    return {
        "picture_listings": len(counted),
        "pictures": [0 if stored is None else len(stored), len(source)],
    }


def sample_and_evaluate(workdir: Path) -> dict[str, Any]:
    """Writes samples and the evaluation; counts what is listed and what is added up."""
    config = small_config(**SETTINGS)
    asked, missing = [], ImageDirectory.missing
    ImageDirectory.missing = lambda self: asked.append(1) or missing(self)  # type: ignore[method-assign]
    sample(config, workdir)
    seen = Bytes()
    former = SumOverDevices._sum_block
    SumOverDevices._sum_block = lambda self, values: seen.watch(  # type: ignore[method-assign]
        lambda some: former(self, some)
    )(values)
    gathered = gathered_by(lambda: evaluate(config, workdir))
    return {"missing_listed": len(asked), "summed": seen.given, "gathered": gathered}


def connect() -> None:
    """Connects the processes for the order of their devices: Gloo waits 30 seconds for the last.

    Later, when each has compiled a step on a machine that is busy, they are further apart.
    """
    mesh = make_mesh(1)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("replica"))
    ones = jax.make_array_from_callback((8,), rows, lambda index: np.ones(8, np.float32)[index])
    total = jax.jit(lambda x: x.sum(), out_shardings=replicated(mesh))(ones)
    assert float(total) == 8


def join() -> tuple[int, Path]:
    """Joins the others; returns which process this is, and the folder."""
    address, count, me, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    initialize(ProcessInfo(address, count, me))
    return me, folder


def resume() -> None:
    """Continues a copy of the run; same arguments."""
    _, folder = join()
    with EndTogether((ConfigError, CheckpointError)):
        train(small_config(**SETTINGS | {"optim.max_steps": 6}), folder / "run")


def main() -> None:
    """Arguments: coordinator, number of processes, which this is, folder."""
    mesh_utils.create_device_mesh = interleaved
    me, folder = join()
    workdir = folder / "run"
    connect()
    with EndTogether((ConfigError, CheckpointError)):
        found = place_weights(me) | list_data(folder / "images")
        train(small_config(**SETTINGS), workdir)
        found |= stale_listing(me, workdir)
        found |= sample_and_evaluate(workdir)
        found |= list_pictures(me, folder / "images" / "class_0")
        (folder / f"found-{me}.json").write_text(json.dumps(found))
