"""How several processes come to know of one process's problem."""

import jax
import numpy as np
from jax.experimental import multihost_utils

_MESSAGE_BYTES = 512  # what processes tell each other about a failure is cut to this


def told_by_all(problem: str) -> str:
    """Returns the first process's non-empty text on every process; a barrier. One: as it is."""
    if jax.process_count() == 1:
        return problem
    line = np.zeros(_MESSAGE_BYTES, np.uint8)
    text = problem.encode()[:_MESSAGE_BYTES]
    line[: len(text)] = np.frombuffer(text, np.uint8)
    lines = np.asarray(multihost_utils.process_allgather(line))
    texts = [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in lines]
    return next((text for text in texts if text), "")
