"""A short campaign of damaged files of data, and that it would notice a traceback."""

import os

import numpy as np
import pytest

from launch.campaigns import damaged_data
from launch.campaigns.damaged_files import KINDS, SOURCES, Case, damage, make, write_sound
from rae_dit.data import images


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(kind):
    """Seeds differ from kind to kind, and from those of the campaigns that were run."""
    found = [damaged_data.outcome(Case(kind, seed)) for seed in range(10_000, 10_010)]
    assert {*found} <= {"read", "refused"}
    assert "refused" in found


@pytest.mark.parametrize("kind", KINDS)
def test_sound_files_are_read(kind, tmp_path):
    files = write_sound(kind, tmp_path)
    damaged_data.read(kind, tmp_path if kind in SOURCES else files[0])


def test_the_same_seed_damages_alike(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    contents = [make(Case("names", 3), tmp_path / name).read_bytes() for name in ("a", "b")]
    assert contents[0] == contents[1] != damage(contents[0], np.random.default_rng(0))


def test_a_traceback_would_be_noticed(monkeypatch):
    monkeypatch.setattr(images, "_DAMAGE", ())
    found = [damaged_data.outcome(Case("folder", seed)) for seed in range(10_000, 10_003)]
    assert any(line.startswith("FAILED: ") for line in found)


def test_a_crash_would_be_noticed():
    cases = [Case("names", 1), Case("names", 2), Case("names", 3)]
    assert damaged_data.run_apart(cases, _crashes_at_two) == [
        "refused",
        "CRASHED: exit code -6",
        "refused",
    ]


def _crashes_at_two(case: Case) -> str:
    if case.seed == 2:
        os.abort()
    return "refused"
