"""JAX's coordination service: keys and values that every process can read, without devices."""

import contextlib
from typing import Any

ERRORS = "rae_dit/errors"  # directory: number of a process -> why it ended
LEFT = "rae_dit/left"  # directory: numbers of the processes that have ended
CLOSING = "rae_dit/closing"  # directory: numbers of those that finish their last writes
# Written by JAX's preemption service when a process gets SIGTERM.
PREEMPTION_NOTICE = "RECEIVED_PREEMPTION_NOTICE"


def client() -> Any:
    """Returns this process's client of the service; None where it is the only process."""
    from jax._src import distributed  # JAX has no public name for it

    state = distributed.global_state
    return state.client if state.num_processes > 1 else None


def process_id() -> int:
    """Returns the number of this process; asks no device."""
    from jax._src import distributed

    return int(distributed.global_state.process_id)


def process_count() -> int:
    """Returns the number of processes; asks no device."""
    from jax._src import distributed

    return int(distributed.global_state.num_processes)


def post(directory: str, value: str) -> None:
    """Writes this process's value into a directory; does nothing where the service has ended."""
    with contextlib.suppress(Exception):  # jaxlib raises its own kinds; nobody is left to tell
        client().key_value_set(f"{directory}/{process_id()}", value, allow_overwrite=True)


def withdraw(directory: str) -> None:
    """Deletes this process's value from a directory; does nothing where the service has ended."""
    with contextlib.suppress(Exception):
        client().key_value_delete(f"{directory}/{process_id()}")


def posted(directory: str) -> dict[int, str]:
    """Returns number of a process -> value; nothing where the service has ended."""
    with contextlib.suppress(Exception):
        found = client().key_value_dir_get(f"{directory}/")
        return {int(key.rpartition("/")[2]): value for key, value in found}
    return {}


def stop_is_requested() -> bool:
    """Tells whether a process got SIGTERM."""
    with contextlib.suppress(Exception):  # NotFound: nobody did
        client().key_value_try_get(PREEMPTION_NOTICE)
        return True
    return False
