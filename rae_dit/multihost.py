"""Communication between the processes of a run: join, broadcast, gather, agree on preemption.

JAX is imported inside the functions: the command line calls `find_process_info` and reports
mistakes in the flags before JAX is imported.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any, NamedTuple, Self

import numpy as np

from rae_dit.config import ConfigError

_MESSAGE_BYTES = 512  # error messages are cut to this


class ProcessInfo(NamedTuple):
    """Position of a process among those of its run.

    Attributes:
        coordinator_address: HOST:PORT of process 0, as the others reach it.
        num_processes: how many there are.
        process_id: which one this is, from 0.
    """

    coordinator_address: str
    num_processes: int
    process_id: int


def find_process_info(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> ProcessInfo | None:
    """Checks the three flags that name a process; None if none of them is given.

    Raises:
        ConfigError: some are missing, or they contradict each other.
    """
    given = {
        "--coordinator_address": coordinator_address,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if coordinator_address is None or num_processes is None or process_id is None:
        raise ConfigError(f"{missing[0]}: missing; expected all of {', '.join(given)} or none")
    host, _, port = coordinator_address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(
            f"--coordinator_address: got {coordinator_address!r}; expected HOST:PORT of process 0 "
            "such as 10.0.0.1:8476"
        )
    if process_id >= num_processes:
        raise ConfigError(
            f"--process_id: got {process_id}; expected 0 to {num_processes - 1} "
            f"because --num_processes is {num_processes}"
        )
    return ProcessInfo(coordinator_address, num_processes, process_id)


def initialize(info: ProcessInfo | None) -> None:
    """Joins the other processes of the run, if there are any.

    Call it once, before anything asks JAX for a device. JAX handles SIGTERM from then on if there
    are several processes (see `Preemption`).

    Args:
        info: from `find_process_info`; None: as the TPU pod or SLURM says, or a single process.
    """
    import jax  # late: main has this file before it knows whether anything will be computed

    if info is not None:
        # 'deactivate': or SLURM would choose this process's devices, and show it only one.
        jax.distributed.initialize(*info, cluster_detection_method="deactivate")
    elif in_cluster():
        join_cluster()


def in_cluster() -> bool:
    """Tells whether this may be a TPU pod or a SLURM job of several processes."""
    import jax

    # JAX adds 'tpu' where it finds chips, unless JAX_PLATFORMS says otherwise. SLURM also describes
    # shells and jobs of one task: JAX must not take its word there, it would show one GPU only.
    on_tpu = "tpu" in (jax.config.jax_platforms or "")  # type: ignore[attr-defined]
    return on_tpu or os.environ.get("SLURM_STEP_NUM_TASKS") not in (None, "1")


def join_cluster() -> None:
    """Joins the processes that the cluster names, if JAX finds any."""
    import jax

    with contextlib.suppress(ValueError):  # no coordinator: a TPU host that belongs to no pod
        jax.distributed.initialize()


class Preemption(AbstractContextManager["Preemption"]):
    """Hears SIGTERM while it is open: a request to save and stop, at a step all processes agree on.

    Several processes: JAX's coordination service hears the signal from `initialize` on, and agrees
    on a step. A single process needs no agreement, so a signal handler sets a flag. Python runs it
    once the running call returns (a compile, a wait for the device), so no signal is lost there.
    """

    def __init__(self) -> None:
        """Starts without a request."""
        self._requested = False
        self._former: Any = None

    def __enter__(self) -> Self:
        import jax

        self._alone = jax.process_count() == 1
        if self._alone and threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGTERM, self._request) or signal.SIG_DFL
        return self

    def __exit__(self, *exception: object) -> None:
        """Restores the former handler."""
        if self._former is not None:
            signal.signal(signal.SIGTERM, self._former)
            self._former = None

    def reached(self, step: int) -> bool:
        """Tells whether to save `step` and stop; call it once a step, on all processes."""
        from jax.experimental import multihost_utils

        if self._alone:
            return self._requested
        try:
            return multihost_utils.reached_preemption_sync_point(step)
        except RuntimeError:  # the user has turned JAX's preemption service off
            return False

    def reached_before(self, first: int) -> bool:
        """Tells whether to stop before the step after `first`: the signal came during loading.

        JAX files a request under (last polled step + 1). Polling 1 finds one that came before any
        poll; polling `first` makes JAX file later ones under the steps that this run takes.
        """
        return self.reached(1) or self.reached(first)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = True


def first_error(problem: str) -> str:
    """Broadcasts the first non-empty message to all processes; acts as a barrier."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return problem
    line = np.zeros(_MESSAGE_BYTES, np.uint8)
    text = problem.encode()[:_MESSAGE_BYTES]
    line[: len(text)] = np.frombuffer(text, np.uint8)
    lines = np.asarray(multihost_utils.process_allgather(line))
    texts = [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in lines]
    return next((text for text in texts if text), "")


def on_first_process(work: Callable[[], None]) -> None:
    """Runs `work` on process 0; raises its ConfigError on all processes."""
    import jax

    problem = ""
    if jax.process_index() == 0:
        try:
            work()
        except ConfigError as error:
            problem = str(error)
    problem = first_error(problem)
    if problem:
        raise ConfigError(problem)


def broadcast_set(numbers: set[int], count: int) -> set[int]:
    """Broadcasts process 0's set of numbers below `count`; acts as a barrier.

    Other hosts may see a stale listing of a shared directory.
    """
    from jax.experimental import multihost_utils

    flags = np.isin(np.arange(count), sorted(numbers))
    return set(np.flatnonzero(multihost_utils.broadcast_one_to_all(flags)).tolist())


def allgather_bytes(content: bytes) -> list[bytes]:
    """Gathers the bytes of every process, in order, on every process."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return [content]
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(content))))
    padded = np.zeros(max(int(lengths.max()), 1), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]
