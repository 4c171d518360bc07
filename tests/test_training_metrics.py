"""metrics.jsonl through kills and resumes, TensorBoard with and without tensorflow."""

import json
import logging
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rae_dit.training import event_writer, metrics
from rae_dit.training.metrics import MetricsWriter

HERE = Path(__file__).parent


class Events:
    """Stands in for CLU's writer."""

    def __init__(self) -> None:
        self.scalars: list[tuple[int, dict[str, float]]] = []
        self.images: list[tuple[int, dict[str, np.ndarray]]] = []
        self.flushed = self.closed = 0

    def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
        self.scalars.append((step, dict(scalars)))

    def write_images(self, step: int, images: dict[str, np.ndarray]) -> None:
        self.images.append((step, dict(images)))

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    """Keeps tensorflow out of these tests."""
    stand_in = Events()
    monkeypatch.setattr(metrics, "EventWriter", lambda directory: stand_in)
    return stand_in


def read(workdir: Path) -> list[dict[str, float | None]]:
    text = (workdir / "metrics.jsonl").read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_in_the_file_when_write_returns(tmp_path: Path, events: Events) -> None:
    with MetricsWriter(tmp_path / "new" / "run", is_main=True) as writer:
        writer.write(1, {"train/loss": jnp.float32(0.5), "count": np.int64(3)})
        assert read(tmp_path / "new" / "run") == [{"step": 1, "train/loss": 0.5, "count": 3.0}]
        writer.flush()
        assert events.flushed == 1
    assert events.closed == 1
    assert events.scalars == [(1, {"train/loss": 0.5, "count": 3.0})]


def test_others_get_the_same_and_are_closed(tmp_path: Path, events: Events) -> None:
    other = Events()
    with MetricsWriter(tmp_path, is_main=True, others=[other]) as writer:
        writer.write(1, {"a": 2.0})
    assert other.scalars == events.scalars == [(1, {"a": 2.0})]
    assert (other.closed, events.closed) == (1, 1)


def test_a_picture_is_shown_as_it_is_on_disk(tmp_path: Path, events: Events) -> None:
    pixels = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with MetricsWriter(tmp_path, is_main=True) as writer:
        writer.write_picture(5, "samples", tmp_path / "a.png")
    ((step, images),) = events.images
    assert (step, list(images)) == (5, ["samples"])
    np.testing.assert_array_equal(images["samples"], pixels[None])


def test_nobody_looks_at_a_picture_where_nobody_writes(tmp_path: Path, events: Events) -> None:
    with MetricsWriter(tmp_path, is_main=False) as writer:
        writer.write_picture(5, "samples", tmp_path / "there is none.png")


def test_what_is_not_finite_is_null(tmp_path: Path, events: Events) -> None:
    with MetricsWriter(tmp_path, is_main=True) as writer:
        writer.write(1, {"a": math.nan, "b": math.inf, "c": jnp.float32(-jnp.inf), "d": 1.0})
    text = (tmp_path / "metrics.jsonl").read_text()
    parsed = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert parsed == {"step": 1, "a": None, "b": None, "c": None, "d": 1.0}
    assert math.isnan(events.scalars[0][1]["a"])  # TensorBoard marks it


def test_step_is_no_name_for_a_metric(tmp_path: Path, events: Events) -> None:
    with (
        MetricsWriter(tmp_path, is_main=True) as writer,
        pytest.raises(ValueError, match="'step'"),
    ):
        writer.write(1, {"step": 2.0})


def test_other_processes_write_nothing(tmp_path: Path, events: Events) -> None:
    with MetricsWriter(tmp_path / "run", is_main=False) as writer:
        writer.write(1, {"a": 1.0})
        writer.truncate(0)
        writer.flush()
    assert list(tmp_path.iterdir()) == []
    assert events.scalars == []


def test_truncate_drops_later_steps_only(tmp_path: Path, events: Events) -> None:
    with MetricsWriter(tmp_path, is_main=True) as writer:
        for step in (1, 2, 3, 4):
            writer.write(step, {"a": step})
            writer.write(step, {"b": step})
    with MetricsWriter(tmp_path, is_main=True) as writer:
        writer.truncate(2)
        writer.write(3, {"a": 30})
    steps = [(line["step"], line.get("a"), line.get("b")) for line in read(tmp_path)]
    assert steps == [(1, 1, None), (1, None, 1), (2, 2, None), (2, None, 2), (3, 30, None)]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_truncate_is_one_replacement(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MetricsWriter(tmp_path, is_main=True) as writer:
        for step in (1, 2):
            writer.write(step, {"a": step})
        before = (tmp_path / "metrics.jsonl").read_bytes()

        def killed(source: Path, target: Path) -> None:
            assert Path(target).read_bytes() == before
            assert Path(source).read_bytes() == before.splitlines(keepends=True)[0]
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            writer.truncate(1)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "tail", [b'{"step": 2, "a', b'{"step": 2, "\xc3', b"\0\0\0", b'{"step": 2, "a": 2.0}']
)
def test_a_torn_last_line_is_repaired(tmp_path: Path, events: Events, tail: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "a": 1.0}\n' + tail)
    with MetricsWriter(tmp_path, is_main=True) as writer:
        writer.write(3, {"a": 3.0})
    whole = [{"step": 2, "a": 2.0}] if tail.endswith(b"}") else []
    assert read(tmp_path) == [{"step": 1, "a": 1.0}, *whole, {"step": 3, "a": 3.0}]


def test_a_good_file_is_left_alone(tmp_path: Path, events: Events) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1.0}\n')
    inode = path.stat().st_ino
    with MetricsWriter(tmp_path, is_main=True) as writer:
        writer.truncate(1)
    assert path.stat().st_ino == inode


KILLED = """
import os, signal, sys
sys.modules["tensorflow"] = None  # a machine without it
from rae_dit.training.metrics import MetricsWriter
assert "clu" not in sys.modules
writer = MetricsWriter(sys.argv[1], is_main=True)
other = MetricsWriter(sys.argv[1], is_main=False)
for step in range(1, 101):
    writer.write(step, {"train/loss": 1 / step})
    writer.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_without_tensorflow_and_killed(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert [line["step"] for line in read(tmp_path)] == list(range(1, 101))
    assert ended.stderr.count("No TensorBoard events") == 1
    assert "pip install" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


WITH_TENSORFLOW = """
import sys
from absl import logging as absl_logging
from rae_dit.training.metrics import MetricsWriter
assert not {"tensorflow", "clu", "tensorboard"} & set(sys.modules), "import must stay cheap"
absl_logging.set_verbosity(absl_logging.INFO)
with MetricsWriter(sys.argv[1], is_main=True) as writer:
    writer.write(1, {"train/loss": 0.5})
    writer.write(2, {"train/loss": float("nan"), "valid/loss": 0.25})
    from PIL import Image
    Image.new("RGB", (3, 2)).save(sys.argv[1] + "/a.png")
    writer.write_picture(2, "samples", sys.argv[1] + "/a.png")
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util.tensor_util import make_ndarray
from pathlib import Path
[path] = Path(sys.argv[1]).glob("tensorboard/events.out.tfevents.*")
for event in EventFileLoader(str(path)).Load():
    for value in event.summary.value:
        shown = make_ndarray(value.tensor)
        print("event", event.step, value.tag, shown if shown.ndim == 0 else shown[:2])
"""


def test_events_can_be_read_back_and_nothing_is_printed(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITH_TENSORFLOW, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "event 1 train/loss 0.5",
        "event 2 train/loss nan",
        "event 2 valid/loss 0.25",
        "event 2 samples [b'3' b'2']",
    ]
    assert ended.stderr == ""
    assert len(read(tmp_path)) == 2


def test_the_warning_comes_once_per_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with caplog.at_level(logging.WARNING, logger="rae_dit"):
        with MetricsWriter(tmp_path, is_main=True) as writer:
            writer.write(1, {"a": 1.0})
            writer.write(2, {"a": 1.0})
        MetricsWriter(tmp_path, is_main=False)
    assert len(caplog.records) == 1


def test_an_error_of_the_events_ends_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk(Events):
        def write_scalars(self, step, scalars) -> None:
            super().write_scalars(step, scalars)
            if step == 2:
                raise OSError(28, "No space left on device")

    disk = FullDisk()
    monkeypatch.setattr(event_writer, "clu_writer", lambda directory: disk)
    writer = event_writer.EventWriter(tmp_path)
    writer.write_scalars(1, {"a": 1.0})
    writer.flush()
    writer.write_scalars(2, {"a": 2.0})
    with pytest.raises(OSError, match="No space left"):
        writer.flush()
    writer.close()
    assert (disk.scalars, disk.closed) == ([(1, {"a": 1.0}), (2, {"a": 2.0})], 1)
