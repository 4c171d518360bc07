"""A trace holds the steps asked for, and nothing of Python's own calls."""

from pathlib import Path

import jax
import jax.numpy as jnp
from jax.profiler import ProfileData

from rae_dit.training.profile import Profile


def called_only_here(x: jax.Array) -> jax.Array:
    return x + 1


def test_a_trace_leaves_python_out_and_closes_itself(tmp_path: Path) -> None:
    result = jnp.zeros(3)
    with Profile(tmp_path, first=2, count=2) as profile:
        for step in range(1, 5):
            profile.before(step)
            result = called_only_here(result)
            profile.after(step, result)
            assert bool(list(tmp_path.rglob("*.xplane.pb"))) == (step >= 3)
    (trace,) = tmp_path.rglob("*.xplane.pb")
    names = {
        event.name
        for plane in ProfileData.from_file(str(trace)).planes
        for line in plane.lines
        for event in line.events
    }
    assert names
    assert not [name for name in names if "called_only_here" in name]
