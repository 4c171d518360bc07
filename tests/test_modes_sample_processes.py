"""--mode=sample on two processes: each writes its share, and the files are those of one."""

import pytest
from support import run_processes
from support.sampling_run import SETTINGS

pytestmark = pytest.mark.slow

SAMPLED = SETTINGS | {
    "ddt.hidden_size": "(48, 64)",
    "ddt.depth": "(3, 2)",
    "ddt.num_heads": "(4, 4)",
    "sample.method": "sde",
    "sample.cfg_scale": 2.0,
    "sample.num_samples": 14,
    "sample.batch_size": 6,
    "objective": "flow_matching",
}


def test_two_processes_write_the_files_of_one(tmp_path):
    alone, pair = tmp_path / "alone", tmp_path / "pair"
    one = run_processes.start(alone, SAMPLED, devices=4, place=None, mode="sample")
    run_processes.wait(alone, [one])
    run_processes.wait(pair, run_processes.start_pair(pair, SAMPLED, mode="sample"))
    files = {path.name: path.read_bytes() for path in (alone / "samples").iterdir()}
    assert len(files) == 14 + 3
    assert files == {path.name: path.read_bytes() for path in (pair / "samples").iterdir()}

    # One image of each process is lost, and both compute the batch again.
    lost = [pair / "samples" / f"00000{i}_{i}.png" for i in (1, 4)]
    for path in lost:
        path.unlink()
    run_processes.wait(pair, run_processes.start_pair(pair, SAMPLED, mode="sample"))
    assert files == {path.name: path.read_bytes() for path in (pair / "samples").iterdir()}
