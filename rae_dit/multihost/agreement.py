"""What processes tell each other: errors, decisions of process 0, bytes of all."""

import json
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from rae_dit.config import ConfigError
from rae_dit.multihost.blocks import join_length, padded, split_length

VISIBLE_SECONDS = 60.0  # until what one host wrote is seen by all: caches of shared storage
_MESSAGE_BYTES = 512  # error messages are cut to this
_BLOCK_BYTES = 2**23  # of a broadcast

Value = TypeVar("Value")


def first_error(problem: str) -> str:
    """Broadcasts the first non-empty message to all processes; acts as a barrier."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return problem
    line = np.zeros(_MESSAGE_BYTES, np.uint8)
    text = problem.encode()[:_MESSAGE_BYTES]
    line[: len(text)] = np.frombuffer(text, np.uint8)
    lines = np.asarray(multihost_utils.process_allgather(line))
    texts = [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in lines]
    return next((text for text in texts if text), "")


def on_first_process(work: Callable[[], None]) -> None:
    """Runs `work` on process 0; raises its ConfigError on all processes."""
    decide(work)


def decide(choose: Callable[[], Value], error: type[Exception] = ConfigError) -> Value:
    """Returns on every process what `choose` returns on process 0, which alone calls it.

    Hosts may see different listings of a shared directory, so that what depends on files is
    decided by one of them.

    Args:
        choose: returns a JSON value; a tuple comes back as a list if there are several processes.
        error: what `choose` may raise; raised with its message on all processes.
    """
    import jax

    if jax.process_count() == 1:
        return choose()
    content = b""
    if jax.process_index() == 0:
        try:
            content = json.dumps({"value": choose()}).encode()
        except error as problem:
            content = json.dumps({"error": str(problem)}).encode()
    found = json.loads(broadcast_bytes(content))
    if "error" in found:
        raise error(found["error"])
    value: Value = found["value"]
    return value


def share(make: Callable[[], Value], error: type[Exception] = ConfigError) -> Value:
    """Returns on every process a copy of the object that `make` returns on process 0.

    Args:
        make: process 0 alone calls it; what it returns can be pickled.
        error: what `make` may raise; raised with its message on all processes.
    """
    import jax

    if jax.process_count() == 1:
        return make()
    made: list[Value] = []
    decide(lambda: made.append(make()), error)
    content = broadcast_bytes(pickle.dumps(made[0]) if made else b"")
    return made[0] if made else pickle.loads(content)  # of this run's own process 0


def require_same(find: Callable[[], Mapping[str, str]]) -> None:
    """Refuses to go on with processes that run different things.

    Args:
        find: returns names and values; not called by a process that is alone.

    Raises:
        ConfigError: a value is not that of process 0; on all processes, with the first difference.
    """
    import jax

    if jax.process_count() == 1:
        return
    rows = allgather_bytes(json.dumps(dict(find())).encode())
    problem = first_difference([json.loads(row) for row in rows])
    if problem:
        raise ConfigError(problem)


def first_difference(rows: Sequence[Mapping[str, str]]) -> str:
    """Describes the first value that is not that of process 0; '' if all are the same."""
    for name in dict.fromkeys(name for row in rows for name in row):
        expected = rows[0].get(name)
        for process, row in enumerate(rows):
            if row.get(name) != expected:
                others = sum(other.get(name) != expected for other in rows)
                return (
                    f"{name}: got {row.get(name)!r} on process {process}; expected {expected!r}, "
                    f"as on process 0 ({others} of {len(rows)} processes differ); give all hosts "
                    "the same code and packages, files and command, and start them again"
                )
    return ""


def wait_until_visible(path: Path, error: type[Exception] = ConfigError) -> None:
    """Waits until every process sees a path that process 0 has chosen.

    Raises:
        error: one does not see it within `VISIBLE_SECONDS`; on all processes.
    """
    import jax

    if jax.process_count() == 1:
        return
    last = time.monotonic() + VISIBLE_SECONDS
    while not (visible := path.exists()) and time.monotonic() < last:
        time.sleep(0.1)
    where = f"process {jax.process_index()} has not seen it for {VISIBLE_SECONDS:g} s"
    expected = "storage that all hosts share"
    problem = first_error("" if visible else f"{path}: {where}; expected {expected}")
    if problem:
        raise error(problem)


def broadcast_bytes(content: bytes) -> bytes:
    """Broadcasts the bytes of process 0, in blocks; acts as a barrier.

    Args:
        content: on other processes it is not used.
    """
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return content
    # 32 bits end at 2 GiB.
    length = join_length(multihost_utils.broadcast_one_to_all(split_length(len(content))))
    if jax.process_index() > 0:
        content = bytes(length)
    parts = []
    for start in range(0, length, _BLOCK_BYTES):
        part = content[start : start + _BLOCK_BYTES]
        block = padded(np.frombuffer(part, np.uint8))
        found = np.asarray(multihost_utils.broadcast_one_to_all(block))
        parts.append(found[: len(part)].tobytes())
    return b"".join(parts)


def broadcast_set(find: Callable[[], set[int]], count: int) -> set[int]:
    """Broadcasts a set of numbers below `count` that process 0 finds; acts as a barrier.

    Other hosts may see a stale listing of a shared directory, and need not list it at all.
    """
    import jax

    numbers = find() if jax.process_index() == 0 else set()
    flags = np.packbits(np.isin(np.arange(count), sorted(numbers)))
    found = np.frombuffer(broadcast_bytes(flags.tobytes()), np.uint8)
    return set(np.flatnonzero(np.unpackbits(found, count=count)).tolist())


def allgather_bytes(content: bytes) -> list[bytes]:
    """Gathers the bytes of every process, in order, on every process."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return [content]
    halves = np.asarray(multihost_utils.process_allgather(split_length(len(content))))
    lengths = [join_length(pair) for pair in halves]
    block = padded(np.frombuffer(content, np.uint8), max(lengths))
    rows = np.asarray(multihost_utils.process_allgather(block))
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]
