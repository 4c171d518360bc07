"""Data worker processes: round robin over them, their shared memory, signals and lifetime."""

import functools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import grain
from absl import flags

from rae_dit.config.check import invalid_value

log = logging.getLogger(__name__)

# Seconds that a worker lives on after a notice to stop, unless its run ends it before.
_GRACE = 120

SHARED_MEMORY = "/dev/shm"
BATCHES_PER_WORKER = 2  # in shared memory: one waits to be taken, one to be put in its place
BATCHES_IN_USE = 2  # by the run: one goes to the devices while the next is taken


class WorkerBatches:
    """Iterator of the batches that workers prepare: batch i comes from worker i mod workers."""

    def __init__(
        self, batches: grain.MapDataset, read: grain.ReadOptions, num_workers: int
    ) -> None:
        """Starts nothing yet.

        Args:
            batches: what to read, in order.
            read: threads of each worker.
            num_workers: processes, at least 1.
        """
        # Not public, hence the range of versions in requirements.txt; late, for runs without
        # workers. It is what `mp_prefetch` runs in each worker, without the thread around it that
        # holds two batches more in shared memory, of which there is little in containers.
        from grain._src.python.dataset.transformations import process_prefetch

        # grain 0.2.18 reads an absl flag of its own here and fails when nobody has parsed flags,
        # as in a notebook or under pytest (google/grain#1355). `app.run` still parses them later.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        self._iterators = [
            iter(
                process_prefetch.ProcessPrefetchIterDataset(
                    batches[index::num_workers].to_iter_dataset(read),
                    buffer_size=1,
                    worker_init_fn=functools.partial(start_worker, index, num_workers),
                )
            )
            for index in range(num_workers)
        ]
        self._taken = 0

    def __iter__(self) -> "WorkerBatches":
        return self

    def __next__(self) -> Any:
        if self._taken == 0:
            self._each(lambda iterator: iterator.start_prefetch())
        worker = self._taken % len(self._iterators)
        self._taken += 1
        return next(self._iterators[worker])

    def close(self) -> None:
        """Ends the workers."""
        self._each(lambda iterator: iterator.close())

    def _each(self, call: Callable[[Any], None]) -> None:
        """Calls a function for all workers at once: each start and each end takes a while."""
        with ThreadPoolExecutor(len(self._iterators)) as pool:
            list(pool.map(call, self._iterators))


def check_shared_memory(num_workers: int, batch_bytes: int) -> None:
    """Checks that the batches of the workers fit into /dev/shm, where there is one.

    A process that writes to a full /dev/shm is killed by SIGBUS, without a word.

    Args:
        num_workers: processes; 0 need nothing.
        batch_bytes: size of this host's part of a batch.

    Raises:
        ConfigError: they do not.
    """
    free = free_shared_memory()
    if free is not None and num_workers > workers_that_fit(free, batch_bytes):
        needed = (BATCHES_PER_WORKER * num_workers + BATCHES_IN_USE) * batch_bytes
        expected = (
            f"at most {workers_that_fit(free, batch_bytes)}, because {SHARED_MEMORY} has "
            f"{_gigabytes(free)} free and {num_workers} workers need {_gigabytes(needed)}: "
            f"{BATCHES_PER_WORKER} batches of {_gigabytes(batch_bytes)} each, and "
            f"{BATCHES_IN_USE} in use. Docker takes --shm-size={-(-needed // 10**9) + 1}g"
        )
        raise invalid_value("data.num_workers", num_workers, expected)


def fitting_workers(num_workers: int, batch_bytes: int) -> int:
    """Returns how many of the workers fit into /dev/shm now, and says so if they are fewer."""
    free = free_shared_memory()
    fitting = num_workers if free is None else min(num_workers, workers_that_fit(free, batch_bytes))
    if fitting < num_workers:
        log.info(
            "%d of %d workers read this pass: %s has no room for more",
            *(fitting, num_workers, SHARED_MEMORY),
        )
    return fitting


def workers_that_fit(free_bytes: int, batch_bytes: int) -> int:
    """Computes for how many workers there is room."""
    return max(0, (free_bytes // batch_bytes - BATCHES_IN_USE) // BATCHES_PER_WORKER)


def free_shared_memory() -> int | None:
    """Returns the free bytes of /dev/shm; None where there is none, as on macOS: not known."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB"


def start_worker(index: int, count: int) -> None:
    """Sets up worker `index` of `count`; grain calls it in the new process.

    A cluster that preempts a job signals all of its processes; the run needs its workers until it
    has saved, and then closes them. A run that is killed cannot close them: without a watch they
    would wait forever, with their batches in memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_later(number: int, frame: FrameType | None) -> None:
    """On SIGTERM, keeps the worker alive for 120 s so that the run can save a checkpoint."""
    signal.alarm(_GRACE)


def _end_with_parent() -> None:
    """Waits until the parent process ends, then ends this one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
