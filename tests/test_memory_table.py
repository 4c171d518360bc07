"""What a plan says of rematerialization is what was measured."""

import json
import re
from pathlib import Path

import pytest

from rae_dit.planning.advice import REMAT

TABLE = Path(__file__).resolve().parents[1] / "docs/measured/h200_memory_2026-12-01.jsonl"
BATCHES = {256: 128, 512: 32}  # those that were measured with every policy


@pytest.fixture(scope="module")
def measured() -> dict[tuple[int, str], dict]:
    lines = [json.loads(line) for line in TABLE.read_text().splitlines()]
    return {
        (line["image_size"], line["remat"]): line
        for line in lines
        if line["batch"] == BATCHES[line["image_size"]]
    }


@pytest.mark.parametrize("policy", ["dots", "full"])
def test_time_and_memory_of_a_policy(policy: str, measured: dict[tuple[int, str], dict]) -> None:
    def shares(field: str) -> list[float]:
        return [measured[size, policy][field] / measured[size, "none"][field] for size in BATCHES]

    more, less = re.search(r"([\d to]+) % more time for (\d+) % less", REMAT[policy]).groups()
    said = [int(number) for number in more.split(" to ")]
    assert [round(100 * (share - 1)) for share in sorted(shares("ms"))] == said
    assert {round(100 * (1 - share)) for share in shares("program_gib")} == {int(less)}


def test_the_advice_begins_with_what_costs_least(
    measured: dict[tuple[int, str], dict],
) -> None:
    for size in BATCHES:
        times = [measured[size, policy]["ms"] for policy in ("none", *REMAT)]
        memory = [measured[size, policy]["program_gib"] for policy in ("none", *REMAT)]
        assert times == sorted(times)
        assert memory == sorted(memory, reverse=True)
