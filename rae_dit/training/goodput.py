"""Goodput: the share of a run's wall time in which it took training steps that count.

At every moment a process spends its time on one activity, so the seconds of all activities add up
to the time since the program's start. Steps that changed nothing (not finite) or were undone (by a
rollback, or by a kill after the last save) are moved from "step" to "lost", each at the mean time
of a step. The first step of a process is "compile". The device computes up to two steps while the
host does something else, so a wait for them may be booked under the activity that waited.

The sums over all sessions of a run are in `goodput.json`, written about once a minute by process 0
and at the end. Time between sessions is not counted, nor the last minute before a kill.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, Self, get_args

from rae_dit.storage.errors import StorageError
from rae_dit.storage.files import write_json
from rae_dit.training.progress import duration

log = logging.getLogger(__name__)

Activity = Literal[
    *("step", "lost", "start", "compile", "restore", "data_wait", "save"),
    *("telemetry", "validation", "evaluation", "pictures"),
]
ACTIVITIES: tuple[Activity, ...] = get_args(Activity)
WRITE_EVERY = 60.0  # seconds
_MOST = 10**12  # steps or seconds


class Goodput(AbstractContextManager["Goodput"]):
    """Account of this process's time; a context manager, whose exit writes and logs it."""

    def __init__(
        self,
        path: Path | None,
        *,
        started: float | None = None,
        check_lock: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts with activity "start".

        Args:
            path: of goodput.json; None on a process that does not write.
            started: the clock when the program started; None: now.
            check_lock: called before the file is written: raises StorageError if it may not be.
            clock: seconds, never running backwards.
        """
        self._path = path
        self._check_lock = check_lock
        self._clock = clock
        self._since = clock() if started is None else started
        self._activities: list[Activity] = ["start"]  # the last one is going on
        self._seconds = dict.fromkeys(ACTIVITIES, 0.0)  # of all sessions
        self._former = dict(self._seconds)  # of those before this one
        self._sessions = 1
        self._steps = 0  # in "step": neither a session's first nor lost
        self._reached = 0
        self._bad_steps = 0
        self._written: float | None = None  # None: no step was restored or created yet

    @contextmanager
    def spending(self, activity: Activity) -> Iterator[None]:
        """Books the time of a block under an activity, less that of blocks inside it."""
        self._book()
        self._activities.append(activity)
        try:
            yield
        finally:
            self._book()
            self._activities.pop()

    def switch(self, activity: Activity) -> None:
        """Books the time outside of all blocks under another activity from now on."""
        self._book()
        self._activities[0] = activity

    def begin(self, step: int, bad_steps: int) -> None:
        """Adds the account of former sessions, after a state was restored or created.

        Args:
            step: finished steps of that state.
            bad_steps: those among them that changed nothing.
        """
        self._book()
        if step == 0:  # nothing was restored
            self._seconds["start"] += self._seconds["restore"]
            self._seconds["restore"] = 0.0
        past = _read(self._path)
        if past is not None:
            self._former = {name: past["seconds"].get(name, 0.0) for name in ACTIVITIES}
            for name, seconds in self._former.items():
                self._seconds[name] += seconds
            self._sessions += past["sessions"]
            self._steps, self._reached = past["steps"], past["reached"]
            self._bad_steps = past["bad_steps"]
        if self._reached > step:
            self.went_back(step, bad_steps)
        self._reached, self._bad_steps = step, bad_steps
        self._written = self._clock()

    @contextmanager
    def taking(self, step: int) -> Iterator[None]:
        """Books a training step; what is outside of all blocks belongs to steps from then on."""
        first = self._activities[0] != "step"
        with self.spending("compile" if first else "step"):
            yield
        self._activities[0] = "step"
        self._steps += not first
        self._reached = step

    def count_bad(self, bad_steps: int) -> None:
        """Moves the time of steps that changed nothing to "lost".

        Args:
            bad_steps: of the run so far.
        """
        self._lose(bad_steps - self._bad_steps)
        self._bad_steps = bad_steps

    def went_back(self, step: int, bad_steps: int) -> None:
        """Moves the time of undone steps to "lost"; arguments are those of `begin`."""
        self._lose(self._reached - step - (self._bad_steps - bad_steps))
        self._reached, self._bad_steps = step, bad_steps

    def metrics(self) -> dict[str, float]:
        """Returns the share of "step" and the seconds of each activity, of all sessions."""
        self._book()
        self._write_at_times()
        found = {f"goodput/{name}_seconds": value for name, value in self._seconds.items()}
        return {"goodput/share": _share(self._seconds)} | found

    def table(self) -> str:
        """Returns a line with the shares and one for each activity that took time."""
        self._book()
        session = {name: self._seconds[name] - self._former[name] for name in ACTIVITIES}
        whole, here = sum(self._seconds.values()), sum(session.values())
        lines = [
            f"goodput {_share(self._seconds):.1%} of {duration(whole)} in "
            f"{self._sessions} session{'s' if self._sessions > 1 else ''}, "
            f"{_share(session):.1%} of this one"
        ]
        for name in ACTIVITIES:
            if self._seconds[name] > 0:
                shares = (
                    f"{duration(seconds):>8} {seconds / total:>6.1%}"
                    for seconds, total in ((self._seconds[name], whole), (session[name], here))
                )
                lines.append(f"  {name:<10} {'   '.join(shares)}")
        return "\n".join(lines)

    def write(self) -> None:
        """Writes goodput.json, if this process does; a disk that refuses only costs the account."""
        self._book()
        if self._path is None:
            return
        try:
            self._check_lock()
            write_json(self._path, self._to_json())
        except (OSError, StorageError) as error:
            log.warning("%s cannot be written (%s)", self._path, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Writes and logs the account, if the run got as far as a state."""
        if self._written is not None:
            self.write()
            log.info("%s", self.table())

    def _book(self) -> None:
        """Adds the time since the last call to the activity that is going on."""
        now = self._clock()
        self._seconds[self._activities[-1]] += now - self._since
        self._since = now

    def _lose(self, steps: int) -> None:
        """Moves so many steps from "step" to "lost", at their mean time."""
        steps = min(steps, self._steps)
        if steps > 0:
            seconds = self._seconds["step"] * steps / self._steps
            self._seconds["step"] -= seconds
            self._seconds["lost"] += seconds
            self._steps -= steps

    def _write_at_times(self) -> None:
        if self._written is not None and self._clock() - self._written >= WRITE_EVERY:
            self.write()
            self._written = self._clock()

    def _to_json(self) -> dict[str, Any]:
        return {
            "share": _share(self._seconds),
            "seconds": dict(self._seconds),
            "sessions": self._sessions,
            "steps": self._steps,
            "reached": self._reached,
            "bad_steps": self._bad_steps,
        }


def _share(seconds: Mapping[str, float]) -> float:
    total = sum(seconds.values())
    return max(0.0, seconds["step"] / total) if total else 0.0


def _read(path: Path | None) -> dict[str, Any] | None:
    """Reads goodput.json; None, with a warning, where it cannot be used."""
    if path is None:
        return None
    try:
        found = json.loads(path.read_text())
        counts = [found[name] for name in ("sessions", "steps", "reached", "bad_steps")]
        seconds = list(found["seconds"].values())
        if not all(type(count) is int and 0 <= count < _MOST for count in counts):
            raise ValueError("counts that are none")
        if not all(type(value) in (int, float) and 0 <= value < _MOST for value in seconds):
            raise ValueError("seconds that are none")
    except FileNotFoundError:
        return None
    except (
        *(OSError, StorageError),
        *(ValueError, LookupError, TypeError, AttributeError, RecursionError),
    ) as error:
        log.warning("%s cannot be read (%s); the account starts again", path, error)
        return None
    return found
