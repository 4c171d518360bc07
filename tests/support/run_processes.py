"""Training runs in processes of their own, with little to compile; for tests that need several."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from rae_dit.config import Config
from support.compile_flags import CHEAP
from support.small_run import small_config

ROOT = Path(__file__).parent.parent.parent
SETTINGS = {  # stage 1: a frozen encoder, random numbers and a trained decoder
    "objective": "reconstruction",
    "encoder.depth": 1,
    "decoder.depth": 1,
    "metrics.log_every": 1,
    "metrics.validate_every": 4,
    "metrics.validate_batches": 1,
    "checkpoint.save_every": 2,
    "checkpoint.keep_last": 10,
    "optim.max_steps": 4,
}
PATIENCE = 300  # seconds; the machine may be busy


def config_of(changes: dict[str, object]) -> Config:
    """The config of such a run."""
    return small_config(**(SETTINGS | changes))


def without_tensorflow(folder: Path) -> str:
    """A tensorflow that cannot be imported saves seconds; the run says so and does without."""
    (folder / "stubs").mkdir(exist_ok=True)
    (folder / "stubs" / "tensorflow.py").write_text("raise ImportError('not in this test')\n")
    return str(folder / "stubs")


def start(
    workdir: Path,
    changes: dict[str, object],
    *,
    devices: int,
    place: tuple[str, int, int] | None,
    mode: str = "train",
    first_code: str = "",
) -> subprocess.Popen:
    """Starts one process of a run; its output goes to WORKDIR/../WORKDIR-ID.log.

    Args:
        workdir: of the run. Beside it lies a compile cache, which all runs of a test share.
        changes: dotted fields that differ from SETTINGS.
        devices: of this process.
        place: coordinator, number of processes, and which this is: through launch/gpu_hosts.sh.
        mode: what to do.
        first_code: Python that runs before everything else.
    """
    beside = workdir.parent
    # A tensorflow that cannot be imported saves seconds; the run says so and does without.
    (beside / "stubs").mkdir(exist_ok=True)
    (beside / "stubs" / "tensorflow.py").write_text("raise ImportError('not in this test')\n")
    site = beside / f"site-{workdir.name}"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(first_code)
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {CHEAP}",
        "JAX_COMPILATION_CACHE_DIR": str(beside / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join([str(site), str(beside / "stubs")]),
        "PYTHON": sys.executable,
    }
    command = [sys.executable, "-m", "rae_dit.main"]
    if place is not None:
        names = ("COORDINATOR", "NUM", "ID")
        environment |= {name: str(value) for name, value in zip(names, place, strict=True)}
        command = ["bash", str(ROOT / "launch" / "gpu_hosts.sh")]
    command += [f"--config={ROOT / 'configs' / 'dit_dummy.py'}", f"--workdir={workdir}"]
    command += [f"--mode={mode}"]
    command += [f"--config.{name}={value}" for name, value in (SETTINGS | changes).items()]
    with log_of(workdir, 0 if place is None else place[2]).open("a") as log:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def free_address() -> str:
    """HOST:PORT for a coordinator."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


def start_pair(
    workdir: Path, changes: dict[str, object], *, mode: str = "train", first_code: str = ""
) -> list[subprocess.Popen]:
    """Starts a run of two processes with two devices each."""
    coordinator = free_address()
    places = [(coordinator, 2, i) for i in (0, 1)]
    return [
        start(workdir, changes, devices=2, place=place, mode=mode, first_code=first_code)
        for place in places
    ]


def log_of(workdir: Path, process: int) -> Path:
    """Where the output of a process is."""
    return workdir.parent / f"{workdir.name}-{process}.log"


def wait(workdir: Path, processes: list[subprocess.Popen]) -> None:
    """Waits until all processes of a run have ended well."""
    deadline = time.monotonic() + PATIENCE
    try:
        codes = [process.wait(max(1, deadline - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            process.kill()
    logs = [log_of(workdir, i).read_text()[-3000:] for i in range(len(processes))]
    assert codes == [0] * len(processes), "\n".join(logs)


def start_script(
    folder: Path, code: str, *, count: int, devices: int = 2, arguments: tuple[str, ...] = ()
) -> list[subprocess.Popen]:
    """Starts Python code in several processes, which it makes one by `initialize`.

    Args:
        folder: for the compile cache, and the output of each: ID.log.
        code: its arguments are the coordinator, the number of processes, which it is, and more.
        count: how many processes.
        devices: of each.
        arguments: more of them.
    """
    coordinator = free_address()
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {CHEAP}",
        "PYTHONPATH": f"{without_tensorflow(folder)}:{ROOT / 'tests'}",
    }
    processes = []
    for i in range(count):
        command = [sys.executable, "-c", code, coordinator, str(count), str(i), *arguments]
        with (folder / f"{i}.log").open("w") as log:
            processes.append(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
            )
    return processes


def statuses(processes: list[subprocess.Popen], seconds: float) -> list[int | None]:
    """Waits until all have ended; None for those that have not in that time, which are killed."""
    last = time.monotonic() + seconds
    while any(p.poll() is None for p in processes) and time.monotonic() < last:
        time.sleep(0.05)
    found = [process.poll() for process in processes]
    for process in processes:
        process.kill()
        process.wait()
    return found
