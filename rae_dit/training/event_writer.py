"""TensorBoard's events through CLU, whose writer is made and called in a thread of its own.

CLU needs tensorflow, whose import takes five seconds of Python: it waits for the first event, when
the run's devices have work, because tracing and everything else of a start are Python, too.
"""

import functools
import logging
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)


class EventWriter:
    """Hands scalars and images to CLU's writer, in order; drops them where that cannot be made."""

    def __init__(self, directory: Path) -> None:
        """Starts the thread; imports and makes nothing yet.

        Args:
            directory: of the event files; made if needed.
        """
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tensorboard")
        self._make = functools.cache(functools.partial(clu_writer, directory))
        self._has_events = False
        self._error: Exception | None = None

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds scalars of one step."""
        self._has_events = True
        self._submit("write_scalars", step, scalars)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Adds images of one step, uint8 [1, H, W, 3]."""
        self._has_events = True
        self._submit("write_images", step, images)

    def flush(self) -> None:
        """Waits until everything is in the file."""
        if self._has_events:
            self._submit("flush").result()
        self._raise_error()

    def close(self) -> None:
        """Waits likewise, and ends the thread."""
        try:
            if self._has_events:
                self._submit("close").result()
        finally:
            self._thread.shutdown()
        self._raise_error()

    def _submit(self, method: str, *arguments: Any) -> Future[None]:
        """Calls a method of the writer in the thread; raises what an earlier call met."""
        self._raise_error()
        return self._thread.submit(self._call, method, *arguments)

    def _call(self, method: str, *arguments: Any) -> None:
        try:
            if (writer := self._make()) is not None:
                getattr(writer, method)(*arguments)
        except Exception as error:  # for the thread of the run, at its next call
            self._error = error

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


def clu_writer(directory: Path) -> Any:
    """Makes CLU's writer of events; None, with a warning, where it cannot be imported.

    It is not CLU's default writer: that one also logs every scalar, and the run prints its own
    line.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # both are read while tensorflow loads
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # no mathematics here, and no notice of it
    try:
        import tensorflow as tf
        from clu import metric_writers
    except ImportError as error:
        log.warning(
            "No TensorBoard events: %s. Metrics go to metrics.jsonl and the log; "
            "for events: pip install clu tensorflow-cpu tensorboard",
            error,
        )
        return None
    try:
        tf.config.set_visible_devices([], "GPU")  # or it takes the memory jax needs
    except RuntimeError as error:
        log.warning("tensorflow already holds the GPUs: %s", error)
    return metric_writers.SummaryWriter(str(directory))
