"""Runs on scikit-learn's digits, each in a process of one core, so that many fill a machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ONE_CORE = {
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


def run_python(log: Path, *arguments: str) -> None:
    """Runs Python in a process of one core, whose output goes to a file."""
    with log.open("a") as output:
        subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | ONE_CORE,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=True,
        )


def run(log: Path, *arguments: str) -> None:
    """Runs a mode as `run_python` does."""
    run_python(log, "-m", "rae_dit.main", *arguments)


def autoencoder(work: Path, edition: str, seed: int) -> list[str]:
    """Trains encoder and decoder, computes statistics; returns the flags that name them."""
    directory = work / f"edition{edition or 1}-seed{seed}"
    directory.mkdir(parents=True, exist_ok=True)
    log, seeded = directory / "log", f"--config.seed={seed}"
    if not (directory / "rae/statistics.npz").exists():
        encoder = [f"--config=configs/encoder{edition}_digits.py", f"--workdir={directory}/encoder"]
        run(log, *encoder, seeded)
        rae = [
            f"--config=configs/rae{edition}_digits.py",
            f"--workdir={directory}/rae",
            f"--config.encoder.checkpoint={directory}/encoder",
            seeded,
        ]
        run(log, *rae)
        run(log, *rae, "--mode=stats")
    return [
        f"--config.encoder.checkpoint={directory}/encoder",
        f"--config.encoder.statistics={directory}/rae/statistics.npz",
        f"--config.decoder.checkpoint={directory}/rae",
        seeded,
    ]


def read_lines(path: Path) -> list[dict]:
    """Reads a file of one JSON object a line; [] if there is none."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
