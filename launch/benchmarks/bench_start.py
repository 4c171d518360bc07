r"""Start-up time of `rae_dit.main` to the end of its first step, without and with a cache.

    python launch/benchmarks/bench_start.py --config=configs/dit_dino.py \
        --config.data.source=synthetic --config.encoder.pretrained= --config.decoder.pretrained= \
        --config.precision=bf16 --config.data.batch_size=64

All arguments are given to the run, whose workdir and compile cache are temporary. It logs its first
step, so that the step is waited for, and is killed then. One JSON line for each start.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.campaigns.killed_run import metric_lines

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 600.0
POLL_SECONDS = 0.02


def main() -> None:
    """Starts the run twice."""
    with tempfile.TemporaryDirectory() as directory:
        for start in ("cold", "compiled before"):
            workdir = Path(directory) / start.replace(" ", "_")
            command = [
                *(sys.executable, "-m", "rae_dit.main", f"--workdir={workdir}", *sys.argv[1:]),
                f"--config.compute.compile_cache={directory}/cache",
                *("--config.metrics.log_every=1", "--config.metrics.telemetry=False"),
            ]
            seconds = first_step_seconds(command, workdir)
            print(json.dumps({"start": start, "first_step_seconds": round(seconds, 1)}), flush=True)


def first_step_seconds(command: list[str], workdir: Path) -> float:
    """Runs a command until the first line of its workdir's metrics is there; then kills it.

    Raises:
        RuntimeError: it ended before that, or had none in ten minutes; with the end of its output.
    """
    begun = time.monotonic()
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as process:
            try:
                while process.poll() is None and time.monotonic() - begun < LIMIT_SECONDS:
                    if metric_lines(workdir):
                        return time.monotonic() - begun
                    time.sleep(POLL_SECONDS)
            finally:
                process.kill()
        output.seek(0)
        raise RuntimeError(f"no first step:\n{output.read().decode(errors='replace')[-2000:]}")


if __name__ == "__main__":
    main()
