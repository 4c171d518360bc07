"""Runs below a directory: what they are, how far they are, how they differ."""

import dataclasses
import json
import os
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rae_dit.config.check import invalid_value
from rae_dit.demo.metrics_log import MetricsLog

DEPTH = 4  # folders below the directory in which runs are looked for
MOST_RUNS = 200
LARGEST_CONFIG = 2**20  # bytes
LIVE_SECONDS = 120.0  # a run that wrote metrics so lately is training
PICTURE = re.compile(r"step_(\d{1,12})\.png")


@dataclasses.dataclass(frozen=True)
class Row:
    """A run as the table shows it; None where it has none of that.

    Attributes:
        name: path below the directory.
        objective: of its config.
        step: newest one with metrics.
        max_steps: where it ends.
        state: "training", "finished", "stopped" or "no config".
        loss: newest training loss.
        validation: newest validation loss, of the EMA if there is one.
        score: newest FID, or Frechet distance, of an evaluation during training.
        speed: images per second.
        age: seconds since it wrote metrics.
        problem: why its config is not read; "" if it is.
    """

    name: str
    objective: str
    step: int | None
    max_steps: int | None
    state: str
    loss: float | None
    validation: float | None
    score: float | None
    speed: float | None
    age: float | None
    problem: str


class RunsFolder:
    """The runs below a directory, read again and again; files outside it are never read.

    Args:
        root: the directory.
        only: runs to show, by their path below it; () for all.
    """

    def __init__(self, root: Path, only: tuple[str, ...] = ()):
        self.root = root
        self.only = only
        self._logs: dict[str, MetricsLog] = {}
        self._names: list[str] = []
        self._lock = threading.Lock()  # of the logs: visitors' timers tick at once

    def names(self) -> list[str]:
        """Lists the runs, sorted, at most `MOST_RUNS`."""
        if self.only:
            self._names = [name for name in self.only if (self.root / name).is_dir()]
            return self._names
        found: list[str] = []
        base = len(self.root.parts)
        for folder, below, files in os.walk(self.root):
            path = Path(folder)
            below.sort()
            if "config.json" in files and ("metrics.jsonl" in files or "checkpoints" in below):
                found.append(path.relative_to(self.root).as_posix())
                below.clear()
            elif len(path.parts) - base >= DEPTH:
                below.clear()
            below[:] = [name for name in below if not name.startswith(".")]
            if len(found) >= MOST_RUNS:
                break
        self._names = found
        return found

    def log(self, name: str) -> MetricsLog:
        """Returns the metrics of a run, read to the end.

        Raises:
            ConfigError: there is no such run.
        """
        path = self.path(name)
        with self._lock:
            log = self._logs.setdefault(name, MetricsLog(path / "metrics.jsonl"))
            if self.inside(log.path):
                log.update()
        return log

    def path(self, name: str) -> Path:
        """Returns the workdir of a run.

        Raises:
            ConfigError: there is no such run.
        """
        if name not in self._names and name not in self.names():
            raise invalid_value("run", str(name)[:80], "one of the runs that are listed")
        return self.root / name

    def inside(self, path: Path) -> bool:
        """Tells whether a file lies below the directory, links followed."""
        return path.resolve().is_relative_to(self.root.resolve())

    def config(self, name: str) -> dict[str, Any]:
        """Reads the config of a run, flat: dotted path -> value, of whatever version.

        Raises:
            ConfigError: there is no such run, or its config.json is no JSON object.
        """
        path = self.path(name) / "config.json"
        try:
            if not self.inside(path) or path.stat().st_size > LARGEST_CONFIG:
                raise ValueError("not a config of this directory")
            values = json.loads(path.read_text())
            if not isinstance(values, dict):
                raise ValueError(f"{type(values).__name__}, no object")
        except (OSError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:80]
            raise invalid_value(f"{name}/config.json", reason, "a JSON object") from error
        return flat(values)

    def row(self, name: str, now: float | None = None) -> Row:
        """Describes a run; what is broken in it is said, not raised.

        Raises:
            ConfigError: there is no such run.
        """
        log = self.log(name)
        try:
            values, problem = self.config(name), ""
        except ValueError as error:
            values, problem = {}, str(error)
        age = seconds_since(log.path, time.time() if now is None else now)
        limit, step = values.get("optim.max_steps"), log.last_step
        limit = limit if isinstance(limit, int) else None
        if problem:
            state = "no config"
        elif step is not None and limit is not None and step >= limit:
            state = "finished"
        else:
            state = "training" if age is not None and age < LIVE_SECONDS else "stopped"
        return Row(
            name=name,
            objective=str(values.get("objective", "")),
            step=step,
            max_steps=limit,
            state=state,
            loss=log.last("train/loss"),
            validation=first(log.last("val_ema/loss"), log.last("val/loss")),
            score=first(*(log.last(metric) for metric in scores(log.series))),
            speed=log.last("speed/images_per_second"),
            age=age,
            problem=problem,
        )

    def pictures(self, name: str) -> list[tuple[int, Path]]:
        """Lists the pictures that a run has drawn of its EMA: (step, file), newest first.

        Raises:
            ConfigError: there is no such run.
        """
        folder = self.path(name) / "pictures"
        found = [(PICTURE.fullmatch(path.name), path) for path in folder.glob("step_*.png")]
        numbered = [(int(match[1]), path) for match, path in found if match and self.inside(path)]
        return sorted(numbered, key=lambda pair: -pair[0])


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dicts as dotted path -> value."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[f"{prefix}{name}"] = value
    return result


def differences(configs: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Compares configs: a row [field, value of each run] for every field that differs.

    A run without a field, because it is older, shows "–".
    """
    fields = sorted({field for values in configs.values() for field in values})
    rows = []
    for field in fields:
        shown = [json.dumps(v[field]) if field in v else "–" for v in configs.values()]
        if len(set(shown)) > 1:
            rows.append([field, *(text.strip('"') for text in shown)])
    return rows


def scores(series: Mapping[str, object]) -> list[str]:
    """Lists the metrics of evaluations that are distances, FID first, guided before unguided."""
    order = ("fid", "sfid", "frechet")
    found = [name for name in series if name.startswith("eval/")]
    kinds = [kind for kind in order if any(name[5:].startswith(kind) for name in found)]
    names = [name for kind in kinds for name in sorted(found) if name[5:].startswith(kind)]
    return [name for name in names if not name.endswith("_real")]


def first(*values: float | None) -> float | None:
    """Returns the first that is not None."""
    return next((value for value in values if value is not None), None)


def seconds_since(path: Path, now: float) -> float | None:
    """Returns the age of a file; None if there is none."""
    try:
        return max(now - path.stat().st_mtime, 0.0)
    except OSError:
        return None
