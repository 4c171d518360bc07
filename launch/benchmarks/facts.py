"""What a figure depends on, for every line that a benchmark prints."""

import dataclasses
import subprocess
import time
from pathlib import Path
from typing import Any

import jax

from rae_dit.config import Config

HERE = Path(__file__).parent


def facts(config: Config) -> dict[str, Any]:
    """Returns what a figure depends on: precision, device, versions, commit, date, memory."""
    return {
        "precision": config.precision,
        "sample_precision": config.sample.precision,
        "compute": dataclasses.asdict(config.compute),
        "fsdp": config.sharding.fsdp,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "peak_gib": round(peak_bytes() / 2**30, 2),
    }


def commit() -> str:
    """Returns the commit's short name, with '+' if files differ; '' outside a checkout."""
    try:
        command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
        told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE)
        return told.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def peak_bytes() -> int:
    """Returns the process's peak device memory in bytes; 0 where the device does not report it."""
    return int((jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))
