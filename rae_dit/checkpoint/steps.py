"""Step directories: finding the one to read, naming a damaged one."""

import os
from pathlib import Path

import orbax.checkpoint as ocp

from rae_dit.checkpoint import integrity
from rae_dit.multihost import decide, wait_until_visible
from rae_dit.storage.errors import storage_failure
from rae_dit.storage.places import checkpoint_path


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, found, or used for what was asked."""


class DamagedCheckpointError(CheckpointError):
    """The files of one step are damaged; another step may be fine."""


def finished_steps(directory: Path) -> list[int]:
    """Returns the numbers of the finished steps, sorted."""
    entries = [entry for entry in directory.iterdir() if entry.name.isdigit()]
    return sorted(int(e.name) for e in entries if ocp.utils.is_checkpoint_finalized(e))


def chosen_step(path: str | os.PathLike[str]) -> Path:
    """Finds the step directory on process 0, for all: others may see an older listing."""
    directory = checkpoint_path(decide(lambda: str(find_step(path)), CheckpointError))
    wait_until_visible(directory, CheckpointError)
    return directory


def find_step(path: str | os.PathLike[str]) -> Path:
    """Finds the step directory: `path` itself, or the newest step below it."""
    root = checkpoint_path(path)
    if not root.is_dir():
        raise CheckpointError(f"no checkpoint at {root}: there is no such directory")
    if root.name.isdigit() and (root / "integrity").is_dir():
        return root
    directory = root / "checkpoints" if (root / "checkpoints").is_dir() else root
    steps = finished_steps(directory)
    if not steps:
        names = sorted(entry.name for entry in directory.iterdir())
        content = f"holds {integrity.first_few(names, 10)}" if names else "is empty"
        raise CheckpointError(
            f"no finished checkpoint in {directory}; it {content}. "
            "Give a workdir, its checkpoints directory, or one step directory"
        )
    return directory / str(steps[-1])


def damage(directory: Path, what: str, problem: str) -> str:
    """Describes a damaged step, and which others there are."""
    others = sorted(set(finished_steps(directory.parent)) - {int(directory.name)})
    return f"{directory} is damaged ({what}: {problem}); other steps there: {others}"


def unwritten(
    directory: Path, step: int | None, newest: int | None, error: Exception
) -> CheckpointError:
    """Describes a failed write: of which step, why, and the newest one that is there."""
    reason, advice = short(error), "check free space and permissions"
    if unreachable := storage_failure(error):
        reason, advice = unreachable, "the same command continues once storage can be reached"
    return CheckpointError(
        f"step {step} could not be written to {directory}: {reason}. "
        f"The last good step is {newest}; {advice}"
    )


def short(error: Exception) -> str:
    """Shortens an exception to its type and 300 characters: Orbax quotes whole trees."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}{'...' if len(text) > 300 else ''}"
