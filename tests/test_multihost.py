"""Two processes decide alike: when a loss is a spike, what is the best step, who draws."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.run_processes import PATIENCE, ROOT, config_of, log_of, start_pair, wait

from rae_dit.modes.train import train

# Both say something else, and hear the same: the arguments are the coordinator and who this is.
TALK = r"""
import contextlib, os, signal, sys, time
from pathlib import Path
import jax
import numpy as np
from jax.experimental import multihost_utils
from rae_dit import workdir
from rae_dit.multihost import agreement, place, share, wait_until_visible
from rae_dit.evaluation.metric_state import merge_processes
from rae_dit.multihost import allgather_bytes, broadcast_bytes, broadcast_set, decide
from rae_dit.multihost import on_first_process, require_same
from rae_dit.config import ConfigError
from rae_dit.evaluation.metric_state import MetricState
from rae_dit.evaluation.metrics.base import Features
from rae_dit.evaluation.metrics.class_accuracy import ClassAccuracy
from rae_dit.evaluation.metrics.fid import FID
from rae_dit.evaluation.metrics.precision_recall import PrecisionRecall
from rae_dit.multihost import first_error
from rae_dit.multihost import Preemption, ProcessInfo, initialize
me = int(sys.argv[2])
initialize(ProcessInfo(sys.argv[1], 2, me))
def leave(*error):
    sys.__excepthook__(*error)
    os._exit(1)  # at once: a plain exit waits for the other
sys.excepthook = leave

assert first_error("") == ""
assert first_error(f"said by {me}") == "said by 0"
assert first_error("the second's" if me else "") == "the second's"
assert first_error("x" + "\u00e4" * 400) == "x" + "\u00e4" * 255  # cut within a letter

assert allgather_bytes(b"") == [b"", b""]
assert allgather_bytes(b"a\0" * (1 + me)) == [b"a\0", b"a\0a\0"]
assert allgather_bytes(b"a\0" * (2 - me)) == [b"a\0a\0", b"a\0"]

assert allgather_bytes(bytes([me]) * 1000 * (1 + me)) == [b"\0" * 1000, b"\1" * 2000]
assert broadcast_set(lambda: [{0, 2}, {1, 3}][me], 4) == {0, 2}
assert broadcast_set(lambda: [set(), {1, 3}][me], 4) == set()
assert broadcast_bytes(b"a\0" * 5_000_000 if me == 0 else b"") == b"a\0" * 5_000_000
assert decide(lambda: {"step": 4 + me}) == {"step": 4}

require_same(lambda: {"rae_dit": "1", "jax": "2"})
try:
    require_same(lambda: {"rae_dit": "1", "jax": f"0.{me}"})
except ConfigError as error:
    assert str(error).startswith("jax: got '0.1' on process 1; expected '0.0', as on process 0 (1 ")
else:
    raise AssertionError("different code went on")

try:  # one has a setting that process 0 has not
    require_same(lambda: {"jax": "2"} | {"--config.new": "1"} if me else {"jax": "2"})
except ConfigError as error:
    assert str(error).startswith("--config.new: got '1' on process 1; expected None, as on"), error
else:
    raise AssertionError("other settings went on")

def refuse():
    raise ConfigError(f"refused by {me}")
class Reader:  # of a listing: what it knows travels, the listing does not happen again
    def __init__(self):
        self.made_by = me
assert share(Reader).made_by == 0
try:
    share(lambda: refuse(), ConfigError)
except ConfigError as error:
    assert str(error) == "refused by 0"

# A leaf of 1 MB: its checksum is gathered, not the leaf.
given, gather = [], multihost_utils.process_allgather
def spy(values, **options):
    given.append(np.asarray(values).nbytes)
    return gather(values, **options)
multihost_utils.process_allgather = spy
mesh = jax.sharding.Mesh(jax.devices(), ("all",))
leaf = np.arange(2**18, dtype=np.float32).reshape(512, 512)
split, whole = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
                for axes in ((None, "all"), ()))
placed = place({"a": leaf, "b": leaf}, {"a": split, "b": whole})
assert given == [2 * 4], given
multihost_utils.process_allgather = gather
for array in placed.values():
    for shard in array.addressable_shards:
        np.testing.assert_array_equal(shard.data, leaf[shard.index])
assert place(placed, whole)["a"].sharding == whole
try:
    place({"a": leaf, "b": leaf + me}, whole)
except ConfigError as error:
    assert str(error).startswith("weights: got another 'b' on process 1 than on process 0"), error
else:
    raise AssertionError("nobody was refused")

# A path that the second never sees.
agreement.VISIBLE_SECONDS = 0.3
wait_until_visible(Path("/"))
try:
    wait_until_visible(Path("/" if me == 0 else "/never"))
except ConfigError as error:
    assert "process 1 has not seen it for 0.3 s; expected storage that all" in str(error), error
else:
    raise AssertionError("nobody was refused")

# A workdir that only process 0 has: on its own disk.
folder = Path(sys.argv[3])
with workdir.lock_for_all(folder / "shared"):
    pass
try:
    with workdir.lock_for_all(folder / f"own{me}"):
        raise AssertionError("nobody was refused")
except ConfigError as error:
    assert "process 1 has not seen it for 0.3 s; expected storage that all" in str(error), error
    assert str(error).startswith(f"{folder}/own1/.shared-"), error
assert me or not [*folder.glob("*/.shared-*")]  # process 0 takes it away

# A workdir that is locked is refused on all.
@contextlib.contextmanager
def locked(path):
    refuse()
    yield
workdir.workdir_lock = locked
try:
    with workdir.lock_for_all(Path("any")):
        raise AssertionError("nobody was refused")
except ConfigError as error:
    assert str(error) == "refused by 0"

done = []
on_first_process(lambda: done.append(me))
assert done == [0][me:]
try:
    on_first_process(refuse)
except ConfigError as error:
    assert str(error) == "refused by 0"
else:
    raise AssertionError("nobody was refused")

images = np.random.default_rng(0).random((6, 3))
def state_of(numbers):
    state = MetricState.of([FID, PrecisionRecall, ClassAccuracy], feature_stride=2)
    if len(numbers):
        labels = np.zeros(6, int)[numbers]
        state.update(numbers, Features(images[numbers], classes=numbers), labels)
    return state
ours, whole = merge_processes(state_of(np.arange(6)[me::2])), state_of(np.arange(6))
accuracy = ours[ClassAccuracy]
assert (ours.num_images, accuracy.num_correct, accuracy.num_labeled) == (6, 1, 6)
assert ours[PrecisionRecall].feature_stride == 2
moments = ours[FID].moments()
np.testing.assert_allclose(moments.mean, images.mean(0), rtol=1e-15)  # float64
np.testing.assert_allclose(moments.covariance, np.cov(images.T), rtol=1e-13)
kept = ours[PrecisionRecall].rows  # on the first alone
assert np.array_equal(*kept, whole[PrecisionRecall].features()) if me == 0 else kept == []
alone = merge_processes(state_of(np.arange(0 if me else 6)))  # the second has no image
assert alone.num_images == 6
np.testing.assert_allclose(alone[FID].moments().mean, whole[FID].moments().mean, rtol=1e-15)

# SIGTERM to the second alone: both stop, at one step.
with Preemption() as preemption:
    assert not preemption.reached_before(100)
    if me:
        os.kill(os.getpid(), signal.SIGTERM)
    for step in range(101, 1000):
        if preemption.reached(step):
            break
        allgather_bytes(b"")  # in step with each other, as training is
        time.sleep(0.05)
assert step < 999
assert allgather_bytes(str(step).encode()) == [str(step).encode()] * 2
"""


def test_what_they_tell_each_other_is_the_same_on_both(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        coordinator = f"localhost:{probe.getsockname()[1]}"
    commands = [
        [sys.executable, "-c", TALK, coordinator, str(process), str(tmp_path)] for process in (0, 1)
    ]
    processes = [subprocess.Popen(command, cwd=ROOT) for command in commands]
    deadline, codes = time.monotonic() + PATIENCE, [None, None]
    while None in codes and not any(codes) and time.monotonic() < deadline:
        time.sleep(0.05)
        codes = [process.poll() for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0, 0]


SETTINGS = {
    "optim.spike_factor": 1.02,  # so low that this run goes back twice by itself
    "optim.spike_window": 2,
    "optim.max_steps": 6,
    "checkpoint.save_every": 1,
    "checkpoint.keep_last": 1,
    "checkpoint.best_metric": "val/loss",
    "checkpoint.best_mode": "max",
    "metrics.validate_every": 2,
    "metrics.sample_every": 3,
}


def lines(workdir: Path) -> list[dict[str, float]]:
    """Metrics without the clock's."""
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not k.startswith(("speed/", "goodput/"))}
        for line in found
    ]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    pair, alone = tmp_path / "pair", tmp_path / "alone"
    processes = start_pair(pair, SETTINGS)
    train(config_of(SETTINGS), alone)
    wait(pair, processes)
    ours, theirs = lines(pair), lines(alone)
    assert [line["step"] for line in ours] == [1, 2, 3, 4, 5, 6]
    for line, other in zip(ours, theirs, strict=True):
        assert line == pytest.approx(other, rel=1e-4)
    assert ours[-1]["train/rollbacks"] > 0
    assert "is a spike: back to step" in log_of(pair, 0).read_text()
    assert names(pair / "checkpoints") == names(alone / "checkpoints")
    best, same = (json.loads((w / "checkpoints" / "best.json").read_text()) for w in (pair, alone))
    assert (best["step"], best["value"]) == (same["step"], pytest.approx(same["value"], rel=1e-4))
    assert (pair / "checkpoints" / str(best["step"])).is_dir()
    assert names(pair / "pictures") == ["step_3.png", "step_6.png"]
