"""Reader of a metrics.jsonl that grows while it is read."""

import json
import math
import os
from pathlib import Path

KEPT = ("train/loss", "val/", "val_ema/", "eval/", "speed/images_per_second", "train/lr")
MOST = 2**26  # bytes read at once; the rest comes with the next call

Series = dict[str, list[tuple[int, float]]]
"""Name of a metric -> (step, value); NaN where it was not finite."""


class MetricsLog:
    """The metrics of a run; each call of `update` reads only what has been added.

    A run that resumes cuts its file off at the step it resumes from, by a new file: it is then
    read anew.

    Args:
        path: the file, which need not exist yet.
    """

    def __init__(self, path: Path):
        self.path = path
        self.series: Series = {}
        self.bad_lines = 0
        self._identity: tuple[int, int] | None = None
        self._offset = 0

    def update(self) -> Series:
        """Reads whole new lines; what cannot be read is counted in `bad_lines`."""
        try:
            with self.path.open("rb") as file:
                facts = os.fstat(file.fileno())
                identity = (facts.st_dev, facts.st_ino)
                if identity != self._identity or facts.st_size < self._offset:
                    self.series, self.bad_lines, self._offset = {}, 0, 0
                    self._identity = identity
                file.seek(self._offset)
                added = file.read(MOST)
        except OSError:
            return self.series
        whole = added.rfind(b"\n") + 1
        if not whole and len(added) == MOST:  # no metrics: pass over it
            whole = len(added)
        self._offset += whole
        for line in added[:whole].splitlines():
            self.bad_lines += not self._add(line)
        return self.series

    @property
    def last_step(self) -> int | None:
        """The newest step of any metric; None where there is none."""
        return max((points[-1][0] for points in self.series.values()), default=None)

    def last(self, name: str) -> float | None:
        """Returns the newest value of a metric; None where there is none."""
        points = self.series.get(name)
        return points[-1][1] if points else None

    def _add(self, line: bytes) -> bool:
        """Adds the metrics of a line; tells whether it is one."""
        try:
            record = json.loads(line)
            step = record["step"]
            values = [(name, value) for name, value in record.items() if name.startswith(KEPT)]
            numbers = [(name, math.nan if v is None else float(v)) for name, v in values]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return False
        if not isinstance(step, int):
            return False
        for name, value in numbers:
            self.series.setdefault(name, []).append((step, value))
        return True


def thinned(points: list[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """Returns at most this many points, evenly spread, the last one among them."""
    if len(points) <= most:
        return points
    stride = -(-len(points) // most)
    return points[::-1][::stride][::-1]
