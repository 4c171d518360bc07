"""Asynchronous, verified saving and restoring of a run's state.

`directory/STEP/` holds four Orbax items: `train` (all of the state but the EMA), `ema`, `data`
(JSON position of the data stream) and `integrity` (JSON record of every leaf, see integrity.py).
`ema` is an item of its own, so that sampling reads a quarter of the bytes. restore.py reads them.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict

from rae_dit.checkpoint import integrity
from rae_dit.checkpoint.quarantine import quarantine
from rae_dit.checkpoint.restore import (
    AnyState,
    State,
    items_of,
    read_state,
    restore_ema,
    restore_state,
)
from rae_dit.checkpoint.retention import Best, KeepBest, preservation_policy
from rae_dit.checkpoint.steps import CheckpointError, DamagedCheckpointError, unwritten
from rae_dit.multihost import closing, decide, wait_until_visible
from rae_dit.storage.errors import StorageError
from rae_dit.storage.places import checkpoint_path
from rae_dit.storage.waiting import speaking

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "DamagedCheckpointError",
    "restore_ema",
    "restore_state",
]


class Checkpoints(contextlib.AbstractContextManager["Checkpoints"]):
    """The checkpoints of one run; a context manager, whose exit waits for the last write.

    With several processes every method must be called by all of them at the same point.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        save_every: int,
        keep_last: int,
        keep_every: int | None,
    ) -> None:
        """Opens the directory, created if needed; unfinished writes are ignored.

        Args:
            directory: usually `workdir/checkpoints`.
            save_every: steps between saves.
            keep_last: how many of the newest steps stay on disk.
            keep_every: multiples of this are never deleted; None for no such steps.

        Raises:
            ValueError: a number is below 1.
        """
        if save_every < 1:
            raise ValueError(f"checkpoint.save_every: got {save_every}; expected at least 1")
        self._directory = checkpoint_path(directory)
        self._save_every = save_every
        self._writing: int | None = None  # step handed to Orbax and not yet known to be on disk
        self._current: int | None = None  # newest step that this object saved or restored
        self._keep_best = KeepBest()
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy(keep_last, keep_every, self._keep_best)
            ),
        )

    def save(
        self,
        step: int,
        state: State,
        data: Mapping[str, Any],
        *,
        force: bool = False,
        best: Best | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> bool:
        """Starts writing a checkpoint if one is due: a multiple of save_every, or `force`.

        Returns once the arrays are on the host, so the state may be donated at once.

        Args:
            step: number of finished steps.
            state: the state after that step, of jax arrays.
            data: position of the data stream, JSON values.
            force: save even off the interval (last step of a run, preemption, best step).
            best: the best step so far, perhaps this one; it stays, and `best.json` will name it.
            before: called before a write starts: what must be there when the step is.

        Returns:
            True if this call started a write; False if none is due, or if this step is on disk.

        Raises:
            CheckpointError: this or the previous write failed (the last good step is kept), or the
                directory holds this step or a later one of another run.
        """
        if not (force or step % self._save_every == 0):
            self._keep_best.write_if_saved(self._directory)
            return False
        newest = self.latest_step()
        if newest is not None and step <= newest:
            if step == newest == self._current:
                return False
            raise CheckpointError(
                f"{self._directory} already holds step {newest}, so step {step} would be shadowed "
                "by it at the next start; train in another workdir, or move the later steps away"
            )
        items = {item: integrity.named_leaves(tree) for item, tree in items_of(state).items()}
        position = integrity.as_json(data)
        record = integrity.Record(
            {item: integrity.leaf_records(named) for item, named in items.items()},
            integrity.json_checksum(position),
        )
        before()
        self._writing = step
        self._keep_best.follow(best)
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    data=ocp.args.JsonSave(position),
                    integrity=ocp.args.JsonSave(record.to_json()),
                    **{
                        item: ocp.args.StandardSave(unflatten_dict(named, sep="/"))
                        for item, named in items.items()
                    },
                ),
                force=True,  # the decision was taken above; Orbax's own rules refuse in silence
            )
        except Exception as error:  # Orbax raises ValueError, OSError and plain Exception here
            raise self._write_failed(error) from error
        self._current = step
        return True

    def latest_step(self) -> int | None:
        """Returns the newest step on disk, after waiting for the write in progress; None if none.

        Raises:
            CheckpointError: that write failed.
        """
        return max(self._all_steps(), default=None)

    def restore(
        self, like: AnyState, *, newest: int | None = None
    ) -> tuple[AnyState, dict[str, Any]] | None:
        """Restores the newest undamaged step.

        Newer damaged steps are set aside, once an older one has been read: `12` becomes
        `quarantined-12-0`, which Orbax does not see. If every step is damaged, nothing is renamed.

        Args:
            like: state of jax.ShapeDtypeStruct with the wanted shardings (None: first device).
            newest: steps after this one are set aside too; None: all may be restored.

        Returns:
            The state and the data position, or None if the directory holds no such checkpoint.

        Raises:
            CheckpointError: `like` is not the tree that was stored, or every step is damaged.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self._all_steps()):
            if newest is not None and step > newest:
                damaged[step] = f"{self._directory / str(step)} is later than step {newest}"
                continue
            try:
                restored = self.restore_step(step, like)
            except DamagedCheckpointError as error:
                damaged[step] = str(error)
                continue
            if damaged:
                quarantine(self._directory, damaged)
                self._manager.reload()
            return restored
        if newest is not None or not damaged:
            return None
        raise CheckpointError(
            f"no usable checkpoint in {self._directory}; nothing was renamed. "
            + " | ".join(damaged.values())
            + " | Start in another workdir, or move these directories away to start over"
        )

    def has(self, step: int) -> bool:
        """Tells whether this step is on disk, after waiting for the write in progress."""
        return step in self._all_steps()

    def restore_step(self, step: int, like: AnyState) -> tuple[AnyState, dict[str, Any]]:
        """Restores one step; see `restore`. Never renames.

        Raises:
            CheckpointError: no such step, or `like` is not the tree that was stored.
            DamagedCheckpointError: its files are damaged.
        """
        steps = self._all_steps()
        if step not in steps:
            raise CheckpointError(f"no step {step} in {self._directory}; there are {steps}")
        directory = self._directory / str(step)
        wait_until_visible(directory, CheckpointError)
        restored = read_state(directory, like)
        self._current = step
        return restored

    def close(self) -> None:
        """Waits for the write in progress and frees Orbax's threads.

        Raises:
            CheckpointError: the write failed; the last good step is kept.
        """
        with closing(), contextlib.closing(self._manager):
            self._wait()

    def __exit__(self, *exception: object) -> None:
        """Closes; does not suppress exceptions."""
        self.close()

    def _all_steps(self) -> list[int]:
        """Lists the steps on disk as process 0 sees them, once the write in progress is done."""
        self._wait()
        return decide(lambda: sorted(self._manager.all_steps()))

    def _wait(self) -> None:
        try:
            with speaking(self._directory, f"the write of step {self._writing}"):
                self._manager.wait_until_finished()
            self._keep_best.write(self._directory)
        except Exception as error:  # whatever the writing threads met: disk full, permissions, ...
            raise self._write_failed(error) from error
        self._writing = None

    def _write_failed(self, error: Exception) -> CheckpointError:
        """Forgets the failed write and makes Orbax reread the directory: it forgot older steps."""
        failed, self._writing = self._writing, None
        self._keep_best.forget()
        with contextlib.suppress(StorageError):  # it is not reached now, either
            self._manager.reload()
            self._current = self._manager.latest_step()
        return unwritten(self._directory, failed, self._current, error)
