"""Two processes are one run: same numbers, same files, each other's checkpoints."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from absl import flags
from support.run_processes import ROOT, config_of, log_of, start, start_pair, wait
from support.small_run import host

from rae_dit import multihost
from rae_dit.checkpoint.manager import restore_state
from rae_dit.config import ConfigError
from rae_dit.request import Request, define_flags
from rae_dit.request import parse as parse_request
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh

FSDP = {"sharding.fsdp": 4}


class Runs(NamedTuple):
    """Workdirs of runs of four steps on four devices, saved at 2 and 4."""

    alone: Path  # one process
    pair: Path  # two processes, a copy of the parameters on each device
    one_to_two: Path  # step 2 of `alone`, then two processes with the parameters split over both
    two_to_one: Path  # step 2 of `pair`, then one process


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    runs = Runs(*(folder / name for name in Runs._fields))
    wait(runs.alone, [start(runs.alone, {}, devices=4, place=None)])
    wait(runs.pair, start_pair(runs.pair, {}))
    for old, new in ((runs.alone, runs.one_to_two), (runs.pair, runs.two_to_one)):
        shutil.copytree(old, new)
        shutil.rmtree(new / "checkpoints" / "4")
    wait(runs.one_to_two, start_pair(runs.one_to_two, FSDP))
    wait(runs.two_to_one, [start(runs.two_to_one, {}, devices=4, place=None)])
    return runs


def lines(workdir: Path) -> list[dict[str, float]]:
    """Metrics without the clock's."""
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not k.startswith(("speed/", "goodput/"))}
        for line in found
    ]


def last_state(workdir: Path):
    config = config_of({})
    state, position = restore_state(workdir, make_program(config, make_mesh(1)).abstract)
    return state, position


@pytest.mark.parametrize("name", ["pair", "one_to_two", "two_to_one"])
def test_numbers_are_those_of_one_process(runs: Runs, name: str) -> None:
    ours, alone = lines(getattr(runs, name)), lines(runs.alone)
    assert [line["step"] for line in ours] == [1, 2, 3, 4]
    for line, other in zip(ours, alone, strict=True):
        assert line == pytest.approx(other, rel=1e-5)
    assert {"val/loss", "val_ema/loss"} <= ours[-1].keys()
    (state, position), (other, same_position) = (
        last_state(getattr(runs, name)),
        last_state(runs.alone),
    )
    # On CPUs several processes sum over devices by Gloo, one does not: losses may differ in
    # their last bit. The data position is exactly the same.
    history, same_history = position.pop("history"), same_position.pop("history")
    assert position == same_position
    assert history.pop("losses") == pytest.approx(same_history.pop("losses"), rel=1e-5)
    assert history == same_history
    assert int(state.step) == 4
    for ours, theirs in ((state.params, other.params), (state.ema, other.ema)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            host(ours),
            host(theirs),
        )


# On a torus the mesh does not keep the devices of a host together: here 0, 1, 1, 0.
INTERLEAVED = """
from jax.experimental import mesh_utils
ordered = mesh_utils.create_device_mesh
def interleaved(shape, devices, **settings):
    return ordered(shape, devices=[devices[i] for i in (0, 2, 3, 1)], **settings)
mesh_utils.create_device_mesh = interleaved
"""


@pytest.mark.slow
def test_numbers_do_not_depend_on_where_the_mesh_has_the_devices_of_a_host(runs: Runs) -> None:
    workdir = runs.pair.parent / "interleaved"
    wait(workdir, start_pair(workdir, {}, first_code=INTERLEAVED))
    for line, other in zip(lines(workdir), lines(runs.alone), strict=True):
        assert line == pytest.approx(other, rel=1e-5)


def test_two_processes_write_what_one_does(runs: Runs) -> None:
    def names(folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir())

    assert names(runs.pair) == names(runs.alone)
    assert names(runs.pair / "checkpoints") == names(runs.alone / "checkpoints") == ["2", "4"]
    assert json.loads((runs.pair / "config.json").read_text())["optim"]["max_steps"] == 4


def test_only_the_first_process_talks(runs: Runs) -> None:
    assert "done: step 4 of 4" in log_of(runs.pair, 0).read_text()
    assert "step 4" not in log_of(runs.pair, 1).read_text()
    assert "continuing from step 2" in log_of(runs.one_to_two, 0).read_text()


PLACE = ["--coordinator_address=10.0.0.1:8476", "--num_processes=2", "--process_id=1"]


def parse(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Request:
    argv = ["rae_dit", f"--config={ROOT}/configs/dit_dummy.py", "--workdir=runs/a", *arguments]
    monkeypatch.setattr("sys.argv", argv)  # where ml_collections looks for overrides
    values = flags.FlagValues()
    define_flags(values)
    return parse_request(argv, values)


def test_a_place_is_all_three_flags_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(monkeypatch).process is None
    assert parse(monkeypatch, *PLACE).process == ("10.0.0.1:8476", 2, 1)
    for missing in PLACE:
        given = [flag for flag in PLACE if flag != missing]
        with pytest.raises(ConfigError, match=f"^{missing.split('=')[0]}: missing"):
            parse(monkeypatch, *given)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--coordinator_address=10.0.0.1", "got '10.0.0.1'; expected HOST:PORT"),
        ("--coordinator_address=:8476", "got ':8476'; expected HOST:PORT"),
        ("--process_id=2", "--process_id: got 2; expected 0 to 1"),
    ],
)
def test_a_wrong_place(monkeypatch: pytest.MonkeyPatch, flag: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(monkeypatch, *PLACE, flag)


@pytest.mark.parametrize(("tasks", "found"), [(None, False), ("1", False), ("2", True)])
def test_slurm_counts_when_it_has_several_tasks(
    monkeypatch: pytest.MonkeyPatch, tasks: str | None, found: bool
) -> None:
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    if tasks is not None:
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
    assert multihost.in_cluster() == found


@pytest.mark.parametrize("script", sorted(ROOT.glob("launch/*.sh")), ids=lambda path: path.name)
def test_launch_scripts_are_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
