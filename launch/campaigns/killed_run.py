"""Comparison of a killed run's files with those of the uninterrupted run."""

import json
from pathlib import Path
from typing import Any

from rae_dit.storage.places import COMMITTED, is_committed, is_url
from rae_dit.storage.reading import paths_below


def metric_lines(workdir: Path) -> list[dict[str, Any]]:
    """Metrics without the clock's; a torn last line is left out.

    Raises:
        ValueError: another line is no JSON.
    """
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    *whole, _ = path.read_text().split("\n")  # behind the last newline: nothing, or a torn line
    lines = [json.loads(line) for line in whole]
    return [
        {k: v for k, v in line.items() if not k.startswith(("speed/", "goodput/"))}
        for line in lines
    ]


def committed(workdir: Path) -> list[int]:
    """Lists the complete steps, in order."""
    steps = [p for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()]
    return sorted(int(p.name) for p in steps if is_committed(p))


def unfinished(workdir: Path) -> set[str]:
    """Names the unfinished checkpoints; in a bucket with their size, since their names stay."""
    if not is_url(workdir):
        return {path.name for path in (workdir / "checkpoints").glob("*tmp*")}
    steps: dict[str, list[str]] = {}
    for name in paths_below(workdir / "checkpoints"):
        step, _, rest = name.partition("/")
        steps.setdefault(step, []).append(rest)
    found = {step: names for step, names in steps.items() if step.isdigit()}
    return {f"{step}: {len(n)} objects" for step, n in found.items() if COMMITTED not in n}


class RunComparison:
    """Compares runs with the uninterrupted one, which has kept every step."""

    def __init__(self, reference: Path, keep_last: int) -> None:
        """Reads the uninterrupted run.

        Args:
            reference: its workdir.
            keep_last: how many steps the others keep.
        """
        from rae_dit.setup.run import make_program
        from rae_dit.training.sharding import make_mesh
        from rae_dit.workdir import read_config  # jax: once the caller has chosen its cores

        self.reference = reference
        self.keep_last = keep_last
        self.metrics = metric_lines(reference)
        self.abstract = make_program(read_config(reference), make_mesh(1)).abstract

    def problems(self, workdir: Path, newest_before: int) -> list[str]:
        """What is wrong with a run that was killed.

        Args:
            workdir: of that run.
            newest_before: newest step that was seen on disk so far; 0 for none.

        Returns:
            One line for each problem: points 1 to 4 of kill_campaign.py.
        """
        try:
            if (workdir / "config.json").exists():
                json.loads((workdir / "config.json").read_text())
            lines = metric_lines(workdir)
        except ValueError as error:
            return [f"unreadable: {error}"]
        found = []
        if lines != self.metrics[: len(lines)]:
            found.append(f"{len(lines)} lines of metrics are not those of the uninterrupted run")
        steps = committed(workdir)
        newest = max(steps, default=0)
        if newest < newest_before:
            found.append(f"step {newest_before} was on disk, now {newest} is the newest")
        if newest > len(lines):
            found.append(f"step {newest} is on disk, but the metrics end at {len(lines)}")
        if list((workdir / "checkpoints").glob("quarantined*")):
            found.append("a checkpoint was set aside as damaged")
        # Older ones are about to be deleted, and a kill may have left a part of them.
        kept = steps[-self.keep_last :]
        return found + [text for step in kept for text in self.differences(workdir, step)]

    def problems_at_the_end(self, workdir: Path, newest_before: int) -> list[str]:
        """Lists what is wrong with a killed run that was resumed to its end."""
        found = self.problems(workdir, newest_before)
        if committed(workdir)[-1:] != [len(self.metrics)] or metric_lines(workdir) != self.metrics:
            found.append("it does not end where the uninterrupted run ends")
        return found

    def differences(self, workdir: Path, step: int) -> list[str]:
        """Lists how a stored step differs from the uninterrupted run's."""
        import jax
        import numpy as np

        from rae_dit.checkpoint.manager import CheckpointError, restore_state

        def bits(leaf: jax.Array) -> bytes:
            is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            return np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()

        places = [run / "checkpoints" / str(step) for run in (workdir, self.reference)]
        try:
            ours, theirs = (restore_state(place, self.abstract) for place in places)
        except CheckpointError as error:
            return [f"step {step} cannot be restored: {error}"]
        same = jax.tree.map(lambda a, b: bits(a) == bits(b), ours[0], theirs[0])
        if all(jax.tree.leaves(same)) and ours[1] == theirs[1]:
            return []
        return [f"step {step} is not that of the uninterrupted run"]
