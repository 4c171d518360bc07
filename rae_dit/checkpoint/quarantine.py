"""Setting aside of damaged checkpoints."""

import logging
from collections.abc import Mapping
from pathlib import Path

import jax

from rae_dit.checkpoint.steps import CheckpointError, short
from rae_dit.multihost import first_error
from rae_dit.storage.errors import StorageError
from rae_dit.storage.files import set_aside

log = logging.getLogger(__name__)


def quarantine(directory: Path, damaged: Mapping[int, str]) -> None:
    """Renames damaged steps (step -> reason) to `quarantined-STEP-N`, which Orbax ignores.

    Called by all processes; the first one renames.

    Raises:
        CheckpointError: a directory could not be renamed.
    """
    problem = ""
    if jax.process_index() == 0:
        try:
            for step, reason in damaged.items():
                number = 0
                while (directory / f"quarantined-{step}-{number}").exists():
                    number += 1
                target = directory / f"quarantined-{step}-{number}"
                set_aside(directory / str(step), target)
                log.error("%s. Set aside as %s", reason, target)
        except (OSError, StorageError) as error:
            problem = f"a damaged step could not be renamed: {short(error)}"
    problem = first_error(problem)  # also the barrier before everyone looks again
    if problem:
        raise CheckpointError(problem)
