"""Metric writers: `metrics.jsonl`, TensorBoard events, and further ones such as W&B.

TensorBoard's events go through CLU, which needs tensorflow; both are imported on the host that
writes alone, in a thread (`event_writer`). Without them a run goes on with `metrics.jsonl` and the
log.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol, SupportsFloat

import numpy as np
from PIL import Image

from rae_dit.storage.files import write_bytes
from rae_dit.storage.places import place
from rae_dit.storage.spool import Spool
from rae_dit.training.event_writer import EventWriter

log = logging.getLogger(__name__)


class _EventWriter(Protocol):
    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None: ...
    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class MetricsWriter(AbstractContextManager):
    """Writes scalars of a run to `workdir/metrics.jsonl` and `workdir/tensorboard/`.

    One line of the file is one call of `write`: `{"step": 10, "train/loss": 0.5}`. A value that is
    not finite is written as `null`, because JSON has no NaN; TensorBoard and the printed line show
    what it was. Each line reaches the operating system before `write` returns, so a killed run
    loses none; a line torn by the kill is dropped when the file is opened again. In a bucket, where
    nothing can be appended to, that holds for the lines up to a saved step: `upload` puts them
    there, a thread does at times, and a killed run loses what came since.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        is_main: bool,
        others: Sequence[_EventWriter] = (),
        check_lock: Callable[[], None] = lambda: None,
    ) -> None:
        """Opens the files on the main process; on the others every method does nothing.

        Args:
            workdir: directory of the run; made if needed.
            is_main: True on the one process that writes (`jax.process_index() == 0`).
            others: writers that get the same metrics; closed with this one.
            check_lock: called before files are put into a bucket: raises HeldError if another run
                writes there now.
        """
        # Others have nothing to write, so they need no spool.
        self._spool = Spool(place(workdir), check=check_lock) if is_main else None
        directory = self._spool.directory if self._spool else place(workdir)
        self._path = directory / "metrics.jsonl"
        self._lines: IO[str] | None = None
        self._events = list(others)
        if self._spool is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._spool.fetch(self._path.name)
            if self._path.exists():
                self._rewrite(None)
            self._lines = self._path.open("a", encoding="utf-8")
            self._events.append(EventWriter(self._path.parent / "tensorboard"))

    def write(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Writes scalars of one step.

        Args:
            step: number of finished steps.
            metrics: name ('train/loss') -> number or scalar array.

        Raises:
            ValueError: a metric is called 'step'.
        """
        if self._lines is None:
            return
        if "step" in metrics:
            raise ValueError("a metric is called 'step', which is the step's own name; rename it")
        values = {name: float(value) for name, value in metrics.items()}
        line = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps({"step": int(step), **line}, allow_nan=False) + "\n")
        self._lines.flush()
        for events in self._events:
            events.write_scalars(int(step), values)

    def write_picture(self, step: int, name: str, path: Path) -> None:
        """Adds a picture that is on disk to TensorBoard and the other writers.

        Args:
            step: number of finished steps.
            name: of the series it belongs to.
            path: of a PNG.
        """
        if not self._events:
            return
        with place(path).open("rb") as file, Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"))[None]
        for events in self._events:
            events.write_images(int(step), {name: pixels})

    def truncate(self, step: int) -> None:
        """Drops lines of later steps from `metrics.jsonl`: the resumed run writes them again.

        The file is replaced at once, so a kill leaves the old one or the new one. TensorBoard's
        events stay; it shows the repeated steps on top of each other.

        Args:
            step: the step that was restored.
        """
        if self._lines is None:
            return
        self._lines.close()
        self._rewrite(step)
        self._lines = self._path.open("a", encoding="utf-8")
        self.upload()

    def flush(self) -> None:
        """Waits until everything written so far is in the files."""
        for events in self._events:
            events.flush()

    def upload(self) -> None:
        """Waits until every line written so far is in the workdir, if that is in a bucket.

        Raises:
            HeldError: another run writes there now.
            StorageError: it cannot be written to.
        """
        if self._spool is not None:
            self._spool.upload()

    def __exit__(self, *exception: object) -> None:
        """Closes; an exception of the block propagates."""
        self.close()

    def close(self) -> None:
        """Flushes and closes; the writer cannot be used afterwards."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None
        while self._events:
            self._events.pop().close()
        if self._spool is not None:
            self._spool.close()

    def _rewrite(self, last_step: int | None) -> None:
        """Keeps whole lines up to `last_step` (None: all); leaves a good file alone."""
        before = self._path.read_bytes()
        kept = [line for line in before.split(b"\n") if _belongs(line, last_step)]
        after = b"".join(line + b"\n" for line in kept)
        if after == before:
            return
        write_bytes(self._path, after)
        dropped = before.count(b"\n") + (not before.endswith(b"\n")) - len(kept)
        log.info("%s: dropped %d torn or later lines", self._path, dropped)


def _belongs(line: bytes, last_step: int | None) -> bool:
    """Tells whether a line is whole and of a step that is not later than `last_step`."""
    try:
        record = json.loads(line)
    except ValueError:  # torn by a kill: neither JSON nor, perhaps, UTF-8
        return False
    if not isinstance(record, dict) or not isinstance(record["step"], int):
        return False
    return last_step is None or record["step"] <= last_step
