"""sitting.py compiles benchmarks at the same time and times them one after the other."""

import json
import time
from pathlib import Path

import pytest

from launch.benchmarks import sitting
from launch.benchmarks.sitting import Job, Sitting, parts
from launch.benchmarks.timing import median_seconds

TURN = """-c "
import json, sys, time
from launch.benchmarks.timing import wait_for_turn
turn = sys.argv[1].removeprefix('--turn=')
started = time.time()
time.sleep(0.3)
wait_for_turn(turn)
timed = time.time()
time.sleep(0.3)
print(json.dumps(dict(started=started, timed=timed, ended=time.time())))
" """


def test_benchmarks_start_together_and_are_timed_in_turn(tmp_path: Path, capsys) -> None:
    jobs = [
        Job("first", TURN),
        Job("broken", "-c 'raise SystemExit(3)'"),
        Job("later", TURN, after="first"),
        Job("after a broken one", TURN, after="broken"),
    ]
    whole = Sitting(tmp_path / "work", tmp_path / "out", 60)
    whole.run(jobs)
    lines = [json.loads(text) for text in (tmp_path / "out/sitting.jsonl").read_text().splitlines()]
    found = {line["measurement"]: line for line in lines}
    first, later, last = (found[name] for name in ("first", "later", "after a broken one"))
    assert max(later["started"], last["started"]) < first["timed"]  # all compiled before
    assert later["started"] > first["started"] + 0.3
    assert first["ended"] < later["timed"] < later["ended"] < last["timed"]
    assert "broken: status 3" in capsys.readouterr().out


def test_a_former_sitting_leaves_no_turn(tmp_path: Path) -> None:
    work = tmp_path / "work"
    for name in ("first", "later"):
        Sitting(work, tmp_path / "out", 60).run([Job(name, "-c 'raise SystemExit(1)'")])
    assert (work / "later.go").exists()
    whole = Sitting(work, tmp_path / "out", 60)
    whole.run([Job("first", TURN), Job("later", TURN)])
    lines = [json.loads(text) for text in (tmp_path / "out/sitting.jsonl").read_text().splitlines()]
    first, later = lines
    assert first["ended"] < later["timed"]


def test_what_a_crash_says_first_is_kept() -> None:
    assert sitting.shortened("short") == "short"
    text = "Check failed\n" + "a thread\n" * 10_000 + "the end"
    kept = sitting.shortened(text)
    assert kept.startswith("Check failed")
    assert kept.endswith("the end")
    assert len(kept) < 9100


def test_what_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sitting, "GRACE", 0.5)
    hangs = (
        '-c \'import time; print("{\\"part\\": 1}\\n{\\"pa", flush=True, end=""); time.sleep(60)\''
    )
    whole = Sitting(tmp_path / "work", tmp_path / "out", 1.0)
    whole.run([Job("hangs", hangs, takes_turns=False)])
    assert "hangs: status -9" in capsys.readouterr().out
    assert whole.collect() == [{"measurement": "hangs", "part": 1}]


@pytest.mark.parametrize("fp8", [True, False])
def test_every_job_names_files_that_exist(fp8: bool) -> None:
    jobs = [job for found in parts(Path("cache"), fp8=fp8).values() for job in found]
    assert ("jax fp8" in [job.name for job in jobs]) == fp8
    for word in (word for job in jobs for word in job.command.split()):
        path = word.removeprefix("--config=")
        if path.endswith(".py"):
            assert (sitting.ROOT / path).exists(), word


def test_a_window_is_as_long_as_asked_for() -> None:
    clock = {"calls": 0}

    def call() -> int:
        clock["calls"] += 1
        return clock["calls"]

    def wait(_: int) -> None:
        time.sleep(0.01)

    median_seconds(call, wait, windows=2, repeats=3)
    assert clock["calls"] == 1 + 2 * 3
    clock["calls"] = 0
    median_seconds(call, wait, windows=2, window_seconds=0.05)
    assert 1 + 1 + 2 * 3 <= clock["calls"] <= 1 + 1 + 2 * 6
