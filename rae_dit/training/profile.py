"""Profiler traces of a few steps, for TensorBoard's profile plug-in, Perfetto or XProf."""

import logging
import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

import jax

from rae_dit.storage.files import upload_tree
from rae_dit.storage.places import is_url

log = logging.getLogger(__name__)


class Profile(AbstractContextManager):
    """Records steps first..first+count-1 of a run into `workdir/profile`."""

    def __init__(self, workdir: Path, first: int | None, count: int) -> None:
        """Waits for its first step.

        Args:
            workdir: of the run.
            first: number of the first step to record; None records nothing.
            count: how many.
        """
        self._target = workdir / "profile"
        self._directory = self._target
        if first is not None and is_url(workdir):
            self._directory = Path(tempfile.mkdtemp(prefix="rae_dit-profile-"))
        self._steps = range(0) if first is None else range(first, first + count)
        self._recording = False

    def before(self, step: int) -> None:
        """Starts recording if `step` is the first to record; a later one means a resumed run."""
        if self._steps and step == self._steps[0]:
            jax.profiler.start_trace(str(self._directory), profiler_options=without_python())
            self._recording = True

    def after(self, step: int, result: object) -> None:
        """Ends recording after the last step, whose `result` it waits for."""
        if self._recording and step == self._steps[-1]:
            jax.block_until_ready(result)
            self.close()

    def __exit__(self, *exception: object) -> None:
        """Closes; an exception of the block propagates."""
        self.close()

    def close(self) -> None:
        """Ends recording, if it has begun."""
        if self._recording:
            self._recording = False
            jax.profiler.stop_trace()
            if self._directory is not self._target:
                upload_tree(self._directory, self._target)
                shutil.rmtree(self._directory)
            log.info("a trace of steps from %d is in %s", self._steps[0], self._target)


def without_python() -> jax.profiler.ProfileOptions:
    """Makes options of a trace that leaves Python's own calls out.

    To follow them the profiler hooks into every thread of the interpreter, those of loader, writers
    and checkpoints included, and they say nothing about the cost of a step.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    return options
