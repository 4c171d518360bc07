"""Damaged files, full disks, killed and many processes: what is whole is used, nothing is lost."""

import logging
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.training_states import (
    DATA,
    assert_same,
    biggest_file,
    flip_byte,
    like,
    make_state,
    open_checkpoints,
    save_steps,
    tree_of,
)

from rae_dit.checkpoint.manager import CheckpointError

HERE = Path(__file__).parent
CHILD = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}


def test_a_flipped_byte_is_found_and_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_steps(tmp_path, 1, 2)
    flip_byte(biggest_file(tmp_path / "2" / "train"))
    with (
        caplog.at_level(logging.ERROR, logger="rae_dit"),
        open_checkpoints(tmp_path) as checkpoints,
    ):
        restored, data = checkpoints.restore(like(make_state(0))) or pytest.fail("none")
        assert_same(restored, make_state(1))
        assert data["step"] == 1
        assert checkpoints.latest_step() == 1
        messages = [r.getMessage() for r in caplog.records if r.name.startswith("rae_dit")]
        assert len(messages) == 1
        assert "2 is damaged (train: checksum of " in messages[0]
        assert str(tmp_path / "quarantined-2-0") in messages[0]
        assert checkpoints.save(2, make_state(2), DATA)  # the number is free again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "quarantined-2-0"]
    flip_byte(biggest_file(tmp_path / "2" / "ema"))
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.restore(like(make_state(0)))
    assert (tmp_path / "quarantined-2-1").is_dir()


def cut_array_file(step: Path) -> None:
    os.truncate(biggest_file(step / "train"), 100)


def flip_integrity(step: Path) -> None:
    flip_byte(step / "integrity" / "metadata")


def change_data(step: Path) -> None:
    path = step / "data" / "metadata"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))


def lose_manifest(step: Path) -> None:
    (step / "train" / "manifest.ocdbt").unlink()


@pytest.mark.parametrize("harm", [cut_array_file, flip_integrity, change_data, lose_manifest])
def test_other_damage_is_found_too(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    save_steps(tmp_path, 1, 2)
    harm(tmp_path / "2")
    with open_checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match="is damaged"):
            checkpoints.restore_step(2, like(make_state(0)))
        restored, _ = checkpoints.restore(like(make_state(0))) or pytest.fail("none")
    assert_same(restored, make_state(1))
    assert (tmp_path / "quarantined-2-0").is_dir()


def test_nothing_is_renamed_when_every_step_is_damaged(tmp_path: Path) -> None:
    save_steps(tmp_path, 1, 2)
    for step in ("1", "2"):
        flip_byte(biggest_file(tmp_path / step / "ema"))
    before = tree_of(tmp_path)
    with (
        open_checkpoints(tmp_path) as checkpoints,
        pytest.raises(CheckpointError, match=r"(?s)2 is damaged.*1 is damaged"),
    ):
        checkpoints.restore(like(make_state(0)))
    assert tree_of(tmp_path) == before


def test_a_full_disk_is_reported_and_the_last_good_step_stays(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_checkpoints(tmp_path, keep_last=1) as checkpoints:
        assert checkpoints.save(1, make_state(1), DATA)
        assert checkpoints.latest_step() == 1
        large = make_state(2, width=20_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # writes fail as on a full disk
        try:
            assert checkpoints.save(2, large, DATA)
            with pytest.raises(CheckpointError, match=r"step 2 could not.*last good step is 1"):
                checkpoints.save(3, large, DATA)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert checkpoints.latest_step() == 1
        restored, _ = checkpoints.restore(like(make_state(0))) or pytest.fail("none")
        assert_same(restored, make_state(1))
        assert checkpoints.save(3, make_state(3), DATA)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ["3"]
    last = open_checkpoints(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        assert last.save(4, large, DATA)
        with pytest.raises(CheckpointError, match=r"step 4 could not.*last good step is 3"):
            last.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
from support.training_states import DATA, make_state, open_checkpoints
checkpoints = open_checkpoints(Path(sys.argv[1]))
checkpoints.save(1, make_state(1, width=20_000), DATA)
assert checkpoints.latest_step() == 1
state = make_state(2, width=20_000)
assert checkpoints.save(2, state, DATA)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_during_a_save_leaves_the_last_good_step(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path)], env=CHILD, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "2").exists()  # it was killed in the middle of it
    assert list(tmp_path.glob("2.orbax-checkpoint-tmp*"))
    with open_checkpoints(tmp_path) as checkpoints:
        restored, _ = checkpoints.restore(like(make_state(0, 20_000))) or pytest.fail("none")
        assert_same(restored, make_state(1, 20_000))
        assert checkpoints.save(2, restored, DATA)
    assert (tmp_path / "2").is_dir()


TWO_PROCESSES = """
import sys
from collections.abc import Callable
from pathlib import Path
import jax
directory, port, index = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=index)
from support.training_states import (
    DATA, biggest_file, flip_byte, fully_sharded, like, make_state, open_checkpoints,
)
place = fully_sharded((4,), ("fsdp",))
def spread(state):
    return jax.jit(lambda: state, out_shardings=jax.tree.map(place, state))()
with open_checkpoints(directory) as checkpoints:
    for step in (1, 2, 3):
        assert checkpoints.save(step, spread(make_state(step, 512)), DATA | {"step": step})
    checkpoints.latest_step()
    if index == 0:  # step 3: a silent change; step 2: the files of one process do not open
        flip_byte(biggest_file(directory / "3" / "train"))
        for path in (directory / "2").glob("train/ocdbt.process_1/d/*"):
            path.write_bytes(b"")
    jax.experimental.multihost_utils.sync_global_devices("harmed")
    restored, data = checkpoints.restore(like(spread(make_state(0, 512))))
    expected = spread(make_state(1, 512))
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(expected)):
        assert bool(jax.jit(lambda a, b: (a == b).all())(a, b))
    assert data["step"] == 1 and checkpoints.latest_step() == 1
    assert checkpoints.save(2, restored, DATA)
"""


def test_two_processes_agree_on_the_step(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    flags = CHILD | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    }
    outputs = [tmp_path / f"output-{index}" for index in (0, 1)]  # a full pipe would block a child
    children = []
    for index, output in enumerate(outputs):
        command = [sys.executable, "-c", TWO_PROCESSES, str(tmp_path / "run"), port, str(index)]
        with output.open("w") as file:
            children.append(subprocess.Popen(command, env=flags, stdout=file, stderr=file))
    try:
        codes = [child.wait(timeout=90) for child in children]
    finally:
        for child in children:
            child.kill()
    assert codes == [0, 0], [output.read_text()[-3000:] for output in outputs]
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["1", "2", "quarantined-2-0", "quarantined-3-0"]
    alone = make_state(1, 512)  # what two processes wrote is read by one
    with open_checkpoints(tmp_path / "run") as checkpoints:
        restored, _ = checkpoints.restore(like(alone)) or pytest.fail("none")
    assert_same(restored, alone)
