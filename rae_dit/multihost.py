"""Everything the processes of a run do together: join, agree, broadcast, gather.

JAX is imported inside the functions: the command line reports a mistake in the flags before JAX is
imported, and reads them with `find_process_info`.
"""

import atexit
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rae_dit.config import ConfigError

log = logging.getLogger(__name__)

_MESSAGE_BYTES = 512  # what processes tell each other about a failure is cut to this


class ProcessInfo(NamedTuple):
    """Where a process stands among those of its run.

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
    """Checks the three flags; None if none of them is given.

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


def initialize(info: ProcessInfo | None, *, hear_sigterm: bool) -> None:
    """Joins the other processes of the run, and hears SIGTERM from then on.

    To be called once, before anything asks JAX for a device. Without it a process is alone and a
    SIGTERM ends it; everything else works.

    Args:
        info: from `find_process_info`; None: as the TPU pod or SLURM says, or alone.
        hear_sigterm: whether a process that is alone has a service of its own. Only what asks for
            preemption should: the signal does nothing else any more.
    """
    import jax  # late: main has this file before it knows whether anything will be computed

    if info is not None:
        # 'deactivate': or SLURM would choose this process's devices, and show it only one.
        jax.distributed.initialize(*info, cluster_detection_method="deactivate")
    elif not (in_cluster() and joined_cluster()) and hear_sigterm:
        serve_alone()


def in_cluster() -> bool:
    """Whether TPU hosts or SLURM may know of other processes."""
    import jax

    # JAX adds 'tpu' where it finds chips, unless JAX_PLATFORMS says otherwise. SLURM also describes
    # shells and jobs of one task: JAX must not take its word there, it would show one GPU only.
    on_tpu = "tpu" in (jax.config.jax_platforms or "")  # type: ignore[attr-defined]
    return on_tpu or os.environ.get("SLURM_STEP_NUM_TASKS") not in (None, "1")


def joined_cluster() -> bool:
    """Joins the processes that the cluster names; False where JAX knows no cluster."""
    import jax

    try:
        jax.distributed.initialize()
    except ValueError:  # no coordinator: a TPU host that belongs to no pod
        return False
    return True


def serve_alone() -> None:
    """Starts a service for this process only; a failure costs no more than the hearing.

    It listens on a socket in the file system: no port to be taken by another, and no way through
    the proxy of a company network. JAX aborts the process where it cannot connect, so the socket is
    tried first.
    """
    import jax

    try:
        directory = Path(tempfile.mkdtemp(prefix="rae_dit-"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        path = directory / "socket"
        with socket.socket(socket.AF_UNIX) as trial:
            trial.bind(str(path))
        path.unlink()
        jax.config.update("jax_check_proxy_envs", False)  # its warning does not concern files
        jax.distributed.initialize(
            f"unix:{path}",
            num_processes=1,
            process_id=0,
            coordinator_bind_address=f"unix:{path}",
            cluster_detection_method="deactivate",
        )
    except (OSError, RuntimeError) as error:
        log.warning("SIGTERM will end this run without a checkpoint: %s", error)


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
    """Runs it on process 0; its ConfigError is raised on all."""
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
    """The bytes of every process, on every process."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return [content]
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(content))))
    padded = np.zeros(max(int(lengths.max()), 1), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]
