"""What one process does for all of them, where they share a directory."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from rae_dit.config import ConfigError
from rae_dit.training.agreement import told_by_all


def on_first_process(work: Callable[[], None]) -> None:
    """Runs it on process 0; its ConfigError is raised on all."""
    problem = ""
    if jax.process_index() == 0:
        try:
            work()
        except ConfigError as error:
            problem = str(error)
    problem = told_by_all(problem)
    if problem:
        raise ConfigError(problem)


def agreed(numbers: set[int], count: int) -> set[int]:
    """Those of the numbers below `count` that process 0 has; to others a directory may look older.

    A barrier too.
    """
    flags = np.isin(np.arange(count), sorted(numbers))
    return set(np.flatnonzero(multihost_utils.broadcast_one_to_all(flags)).tolist())
