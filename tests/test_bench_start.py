"""bench_start.py waits for the first line of metrics and leaves nothing running."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.benchmarks.bench_start import first_step, phases

RUN = """
import os, pathlib, sys, time
print("words of the run", flush=True)
path = pathlib.Path(sys.argv[1])
path.with_name("pid").write_text(str(os.getpid()))
time.sleep(0.3)
with path.open("w") as file:
    for part in ('{"step":', ' 1}', chr(10)):
        file.write(part)
        file.flush()
        time.sleep(0.2)
time.sleep(60)
"""


def test_the_first_whole_line_ends_the_wait(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    begun = time.monotonic()
    seconds, words = first_step([sys.executable, "-c", RUN, str(metrics)], tmp_path)
    assert 0.7 <= seconds < 30
    assert words == "words of the run\n"
    assert time.monotonic() - begun < 30
    assert metrics.read_text() == '{"step": 1}\n'
    pid = (tmp_path / "pid").read_text()
    assert not Path(f"/proc/{pid}").exists()


def test_a_run_that_ends_early_is_an_error_with_its_words(tmp_path: Path) -> None:
    code = "print('what went wrong'); raise SystemExit(1)"
    with pytest.raises(RuntimeError, match=r"no first step:\nwhat went wrong"):
        first_step([sys.executable, "-c", code], tmp_path)


def test_what_took_long_is_told() -> None:
    code = """
import jax, jax.numpy as jnp, time
def step(x):
    time.sleep(0.3)
    return jnp.sin(x)
jax.jit(step)(jnp.float32(1))
"""
    environment = os.environ | {"JAX_LOG_COMPILES": "1", "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert dict(phases(ended.stderr)).keys() == {"tracing step"}
    said = "W1201 Finished XLA compilation of jit(step) in 28.126373 sec\n"
    assert dict(phases(said)) == {"XLA compilation jit(step)": 28.1}
