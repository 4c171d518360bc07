"""Which process of a run this is, and how it joins the others."""

import contextlib
import os
from typing import NamedTuple

from rae_dit.config import ConfigError

HEARTBEAT_SECONDS = 60  # without a sign of life from a process after which the others end


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
        jax.distributed.initialize(
            *info,
            cluster_detection_method="deactivate",
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
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
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
