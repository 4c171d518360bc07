"""What a plan says of rematerialization is what was measured."""

import json
import re
from pathlib import Path

import pytest

from rae_dit.planning.advice import REMAT

TABLE = Path(__file__).resolve().parents[1] / "docs/measured/h200_memory_2026-12-01.jsonl"
BATCHES = {256: 128, 512: 32}  # those that were measured with every policy


@pytest.fixture(scope="module")
def sittings() -> list[dict[str, dict]]:
    """The lines of each sitting and size of images, by policy."""
    found: dict[tuple[int, str], dict[str, dict]] = {}
    for line in map(json.loads, TABLE.read_text().splitlines()):
        if line["batch"] == BATCHES[line["image_size"]]:
            found.setdefault((line["image_size"], line["commit"]), {})[line["remat"]] = line
    return [*found.values()]


def shares(sittings: list[dict[str, dict]], policy: str, field: str) -> list[int]:
    """Percent more than without rematerialization, of every sitting that has the figure."""
    return sorted(
        round(100 * (lines[policy][field] / lines["none"][field] - 1))
        for lines in sittings
        if field in lines["none"]
    )


@pytest.mark.parametrize("policy", ["dots", "full"])
def test_time_and_memory_of_a_policy(policy: str, sittings: list[dict[str, dict]]) -> None:
    more, less = re.search(r"([\d to]+) % more time for (\d+) % less", REMAT[policy]).groups()
    times = shares(sittings, policy, "ms")
    assert len(times) == 3
    assert [times[0], times[-1]] == [int(number) for number in more.split(" to ")]
    assert set(shares(sittings, policy, "program_gib")) == {-int(less)}


def test_the_advice_begins_with_what_costs_least(sittings: list[dict[str, dict]]) -> None:
    for lines in sittings:
        times = [lines[policy]["ms"] for policy in ("none", *REMAT)]
        assert times == sorted(times)
