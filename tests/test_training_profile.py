"""A trace holds the steps asked for, and nothing of Python's own calls.

Traces are recorded in a process of their own: a tracer that crashes takes its process with it.
"""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.profiler import ProfileData

ROOT = Path(__file__).parent.parent


def called_only_here(x: jax.Array) -> jax.Array:
    return x + 1


def record(directory: Path) -> None:
    """Records steps 2 and 3 of four."""
    from rae_dit.training.profile import Profile

    result = jnp.zeros(3)
    with Profile(directory, first=2, count=2) as profile:
        for step in range(1, 5):
            profile.before(step)
            result = called_only_here(result)
            profile.after(step, result)
            assert bool(list(directory.rglob("*.xplane.pb"))) == (step >= 3)


def test_a_trace_leaves_python_out_and_closes_itself(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import test_training_profile as test"
    command = [sys.executable, "-X", "faulthandler", "-c"]
    code += f"; test.record(test.Path({str(tmp_path)!r}))"
    subprocess.run([*command, code], check=True, cwd=ROOT / "tests")
    (trace,) = tmp_path.rglob("*.xplane.pb")
    names = {
        event.name
        for plane in ProfileData.from_file(str(trace)).planes
        for line in plane.lines
        for event in line.events
    }
    assert names
    assert not [name for name in names if "called_only_here" in name]
