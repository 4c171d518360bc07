"""bench_scaling.py: what it would run on eight devices, and the table of what it has run."""

import json
from pathlib import Path

import pytest

from launch.benchmarks import bench_scaling, measure, scaling_table
from launch.benchmarks.bench_scaling import combine, layouts


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def plan(*arguments: str) -> list[measure.Measurement]:
        found: list[measure.Measurement] = []
        monkeypatch.setattr(measure, "run", lambda wanted, *rest, **named: found.extend(wanted))
        monkeypatch.setattr(bench_scaling, "count_devices", lambda: 8)
        monkeypatch.setenv("JAX_PLATFORMS", "cpu")
        output = tmp_path / "x.jsonl"
        output.touch()
        monkeypatch.setattr("sys.argv", ["bench_scaling.py", "--output", str(output), *arguments])
        bench_scaling.main()
        return found

    return plan


def test_layouts_of_any_number_of_devices() -> None:
    assert layouts(1) == {"one": 1}
    assert layouts(2) == {"data parallel": 1, "fsdp": 2}
    assert layouts(3) == {"data parallel": 1, "fsdp": 3}
    assert layouts(8) == {"data parallel": 1, "fsdp": 8, "hybrid 2 x 4": 4}


def test_a_plan_for_eight_devices(planned) -> None:
    found = planned("--combine_mib", "64", "--xla_flags=--xla_a=1")
    assert len({each.name for each in found}) == len(found)
    for each in found:
        for word in each.command.split():
            path = word.removeprefix("--config=")
            assert not path.endswith(".py") or (measure.ROOT / path).exists(), each
    train = [each for each in found if ", train, " in each.name]
    # Of each config: one device, 2 x 3 sets of flags on two, 3 x 3 on four and on eight.
    assert len(train) == 4 * (1 + 6 + 9 + 9)
    hybrid = next(e for e in train if "dit2_dinov3, train, 8, hybrid 2 x 4, --xla_a" in e.name)
    assert (hybrid.gpus, hybrid.flags, hybrid.forced) == (8, "--xla_a=1", False)
    assert "--config.sharding.fsdp=4" in hybrid.command.split()
    assert "--config.data.batch_size=1024" in hybrid.command.split()
    assert combine(64).split()[0] == "--xla_gpu_all_reduce_combine_threshold_bytes=67108864"
    chain = [each for each in found if ", checkpoint, " in each.name]
    assert [(each.gpus, each.command.split("--action=")[1].split()[0]) for each in chain] == [
        *((8, "begin"), (1, "continue"), (8, "end")),
    ]


def test_a_dry_run_is_of_forced_cpu_devices(planned) -> None:
    found = planned("--dry_run", "--parts", "train")
    assert [each.gpus for each in found] == [1, 8, 8, 8]
    assert all(each.forced and "configs/dit_dummy.py" in each.command for each in found)


LINES = [
    {"measurement": "xl, train, 1, one", "batch": 128, "ms": 300.0, "images_per_second": 400.0}
    | {"devices": 1, "peak_gib": 56.5},
    {"measurement": "xl, train, 8, fsdp", "batch": 1024, "ms": 330.0, "images_per_second": 3104.0}
    | {"devices": 8, "peak_gib": 50.0},
    {"measurement": "s, train, 8, hybrid 2 x 4", "batch": 8, "ms": 1.0, "images_per_second": 8.0}
    | {"devices": 8, "peak_gib": 1.0},
    {"measurement": "xl, train, 8, fsdp", "part": "account", "ms_a_step": {"collectives": 9.5}},
    {"measurement": "xl, checkpoint, 1, end", "part": "restore", "gib": 12.5, "seconds": 2.5}
    | {"gib_per_second": 5.0, "peak_gib": 13.0},
    {"measurement": "loader for 8 devices", "loader": "folder", "workers": 4, "cores": 4}
    | {"images_per_second_per_core": 207.5},
    {"measurement": "xl, sample, 8, copied", "status": 124},
    {"measurement": "xl, train, 8, fsdp", "status": 0},
]


def test_the_table_says_the_share_of_one_device(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    lines = scaling_table.read(path)
    assert scaling_table.rows(lines)[2:] == [
        "| xl, train, 1, one | 128 | 300.0 | 400.0 | 56.5 | 1.000 |",
        "| xl, train, 8, fsdp | 1024 | 330.0 | 3104.0 | 50.0 | 0.970 |",
        "| s, train, 8, hybrid 2 x 4 | 8 | 1.0 | 8.0 | 1.0 | - |",
        "| xl, train, 8, fsdp: trace of one device |  | collectives 9.5 |  |  |  |",
        "| xl, checkpoint, 1, end: restore, 12.5 GiB |  | 2500 |  | 13.0 | 5.0 GiB/s |",
        "| loader for 8 devices: folder, 4 workers |  |  | 830 |  | 2.0 devices |",
        "| xl, sample, 8, copied |  |  |  |  | ended with status 124 |",
    ]
    scaling_table.draw(tmp_path / "x.png", lines)
    assert (tmp_path / "x.png").stat().st_size > 5_000
