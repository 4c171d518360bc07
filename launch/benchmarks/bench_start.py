r"""Start-up time of `rae_dit.main` to the end of its first step, without and with a cache.

    python launch/benchmarks/bench_start.py --config=configs/dit_dino.py \
        --config.data.source=synthetic --config.encoder.pretrained= --config.decoder.pretrained= \
        --config.precision=bf16 --config.data.batch_size=64

All arguments are given to the run, whose workdir is temporary. It logs its first step, so that the
step is waited for, and is killed then. One JSON line for each start, with what JAX says that it
traced, lowered and compiled for more than a tenth of a second; some of these go on at the same
time, and with a cache "compilation" is reading it. `--cache=DIR` keeps the compile cache there, for
other benchmarks; it must not exist.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.campaigns.killed_run import metric_lines

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 600.0
POLL_SECONDS = 0.02
WORTH_TELLING = 0.1
# "Finished XLA compilation of jit(step) in 28.1 sec" and its like
FINISHED = re.compile(
    r"Finished (tracing|jaxpr to MLIR|XLA compilation).*?(\S+)(?: for \w+)? in ([\d.e-]+)"
)


def main() -> None:
    """Starts the run twice."""
    arguments = [word for word in sys.argv[1:] if not word.startswith("--cache=")]
    kept = next((word.partition("=")[2] for word in sys.argv[1:] if word not in arguments), "")
    if kept and Path(kept).exists():
        sys.exit(f"--cache: {kept} exists; expected none, because the first start is without")
    with tempfile.TemporaryDirectory() as directory:
        for start in ("cold", "compiled before"):
            workdir = Path(directory) / start.replace(" ", "_")
            command = [
                *(sys.executable, "-m", "rae_dit.main", f"--workdir={workdir}", *arguments),
                f"--config.compute.compile_cache={kept or f'{directory}/cache'}",
                *("--config.metrics.log_every=1", "--config.metrics.telemetry=False"),
            ]
            seconds, words = first_step(command, workdir)
            line = {"start": start, "first_step_seconds": round(seconds, 1)}
            print(json.dumps(line | {"longest": dict(phases(words))}), flush=True)


def first_step(command: list[str], workdir: Path) -> tuple[float, str]:
    """Runs a command until the first line of its workdir's metrics is there; then kills it.

    Returns:
        The seconds that took, and what it said.

    Raises:
        RuntimeError: it ended before that, or had none in ten minutes; with the end of its output.
    """
    own = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    begun = time.monotonic()
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, env=own | {"JAX_LOG_COMPILES": "1"}
        ) as process:
            seconds = None
            try:
                while process.poll() is None and time.monotonic() - begun < LIMIT_SECONDS:
                    if metric_lines(workdir):
                        seconds = time.monotonic() - begun
                        break
                    time.sleep(POLL_SECONDS)
            finally:
                process.kill()
        output.seek(0)
        words = output.read().decode(errors="replace")
    if seconds is None:
        raise RuntimeError(f"no first step:\n{words[-2000:]}")
    return seconds, words


def phases(words: str) -> Iterator[tuple[str, Any]]:
    """Yields the longer of what JAX traced, lowered and compiled, and their seconds."""
    for kind, name, seconds in FINISHED.findall(words):
        if float(seconds) >= WORTH_TELLING:
            yield f"{kind} {name}", round(float(seconds), 1)


if __name__ == "__main__":
    main()
