"""Compiled programs on disk: used by the next process, and never in anybody's way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = """
import sys
from rae_dit.compiler import use_compile_cache
use_compile_cache(sys.argv[1])
import jax
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.jit(lambda x: x * 2 + 1)(3.0))
"""


def run(directory: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, directory],
        env=clean | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*-cache"))


def test_it_is_in_the_home_directory_and_found_again(tmp_path: Path) -> None:
    assert run("~/new/jax", HOME=str(tmp_path)).stdout == "7.0\n"
    found = files(tmp_path / "new" / "jax")
    assert found
    run("~/new/jax", HOME=str(tmp_path))
    assert files(tmp_path / "new" / "jax") == found


def test_nothing_is_written_without_a_directory(tmp_path: Path) -> None:
    run("", HOME=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_environment_comes_first(tmp_path: Path) -> None:
    run(str(tmp_path / "config"), JAX_COMPILATION_CACHE_DIR=str(tmp_path / "environment"))
    assert [path.name for path in tmp_path.iterdir()] == ["environment"]


@pytest.mark.parametrize("place", ["file/jax", "/proc/nowhere/jax"])
def test_a_place_that_cannot_be_written_to_stops_nothing(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("no directory")
    assert run(str(tmp_path / place)).stdout == "7.0\n"
