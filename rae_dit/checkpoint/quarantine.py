"""Setting aside of damaged checkpoints."""

import logging
from collections.abc import Mapping

import jax
from etils import epath

from rae_dit.checkpoint.steps import CheckpointError, short
from rae_dit.multihost import first_error

log = logging.getLogger(__name__)


def quarantine(directory: epath.Path, damaged: Mapping[int, str]) -> None:
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
                (directory / str(step)).rename(target)
                log.error("%s. Set aside as %s", reason, target)
        except OSError as error:
            problem = f"a damaged step could not be renamed: {short(error)}"
    problem = first_error(problem)  # also the barrier before everyone looks again
    if problem:
        raise CheckpointError(problem)
