"""Models that the demo page offers: those named on the command line, and no others."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from rae_dit.config import ConfigError
from rae_dit.config.check import did_you_mean, invalid_value
from rae_dit.demo.model import Model, load_model
from rae_dit.demo.parts import Parts
from rae_dit.storage.places import is_committed, place
from rae_dit.workdir import find_run, newest_step, read_config

log = logging.getLogger(__name__)

KEPT = 2  # models in memory: the two that are compared
DEPTH = 2  # folders below a directory in which runs are looked for


class Catalog:
    """The models of a command line by name; loads them when they are asked for.

    Args:
        sources: runs, checkpoints, steps, directories of runs, files or hub ids.
        parts: what goes with them.

    Raises:
        ConfigError: a run, or all runs of a directory, make no images.
    """

    def __init__(self, sources: Sequence[str], parts: Parts):
        self.parts = parts
        self.sources = tuple(dict.fromkeys(one for source in sources for one in expand(source)))
        self._loaded: dict[str, Model] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Lists what can be chosen now: for each run also its steps, newest first."""
        names = []
        for source in self.sources:
            names.append(source)
            if find_run(source) == place(source).absolute():
                names += [str(step) for step in saved_steps(place(source))]
        return list(dict.fromkeys(names))

    def load(self, name: str) -> Model:
        """Loads a model, or takes it from memory.

        Raises:
            ConfigError: it is none of `names`, or its config cannot be used.
            CheckpointError: the run has no sound checkpoint.
            WeightsError: a third-party file cannot be used.
        """
        names = self.names()
        if name not in names:
            expected = f"a model of the command line: {', '.join(names[:5])}"
            raise invalid_value("model", str(name)[:80], expected + did_you_mean(name, names))
        with self._lock:
            source = resolve(name)
            if source not in self._loaded:
                while len(self._loaded) >= KEPT:  # before loading: memory may hold no third one
                    del self._loaded[next(iter(self._loaded))]
                self._loaded[source] = load_model(source, self.parts)
            self._loaded[source] = self._loaded.pop(source)  # the newest is last
            return self._loaded[source]


def expand(source: str) -> list[str]:
    """Returns the runs that make images below a directory that is no run; else the source.

    Raises:
        ConfigError: the run, or all runs in the directory, make no images.
    """
    run = find_run(source)
    if run is not None:
        if read_config(run).trained_network not in ("ddt", "decoder"):
            raise invalid_value("RUN", source, "a run of stage 2 or 1, which makes images")
        return [source]
    if not place(source).is_dir():
        return [source]
    below = [path.parent for depth in range(1, DEPTH + 1) for path in configs(source, depth)]
    runs = [path for path in sorted(below) if find_run(path) == path.absolute()]
    stage2 = [str(path) for path in runs if trained_network(path) == "ddt"]
    if runs and not stage2:
        raise invalid_value("RUN", source, f"a run of stage 2; there are {len(runs)} others")
    return stage2 or [source]


def trained_network(run: Path) -> str:
    """Returns what a run trains; '' where its config is of another version, which is logged."""
    try:
        return read_config(run).trained_network
    except ConfigError as error:
        log.warning("passed over: %s", error)
        return ""


def configs(root: str, depth: int) -> list[Path]:
    """Lists the config files a number of folders below a directory."""
    return list(place(root).glob("/".join(["*"] * depth + ["config.json"])))


def saved_steps(workdir: Path) -> list[Path]:
    """Lists the steps that a run has saved, newest first."""
    found = (path for path in (workdir / "checkpoints").glob("[0-9]*") if path.name.isdigit())
    return sorted(filter(is_committed, found), key=lambda path: -int(path.name))


def resolve(name: str) -> str:
    """Returns the step that a run stands for at the moment; other names as they are."""
    run = find_run(name)
    path = place(name)
    if run is None or path.name.isdigit():
        return name
    step = newest_step(run)
    base = path if path.name == "checkpoints" else path / "checkpoints"
    return name if step is None else str(base / str(step))
