r"""Plot of several runs' training losses and of their distance from the first run.

    python launch/benchmarks/overlay_runs.py fp32=runs/a/metrics.jsonl bf16=runs/b/metrics.jsonl \
        --output losses.png --title "DiT^DH-S, same seed and batches"

The upper panel has the losses, the lower one |loss / loss of the first run - 1| at the steps that
both logged. Median and largest distance are printed.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.curves import read_losses
from rae_dit.evaluation.image_grid import FONT, write_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe & Ito, for color-blind readers


def main() -> None:
    """Draws and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", help="NAME=METRICS.jsonl, the first is compared with")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--title", default="")
    options = parser.parse_args()
    if unnamed := [run for run in options.runs if "=" not in run]:
        parser.error(f"got {unnamed[0]!r}; expected NAME=METRICS.jsonl")
    named = dict(run.split("=", 1) for run in options.runs)
    if len(named) > len(COLORS):
        parser.error(f"got {len(named)} runs; expected at most {len(COLORS)}, one a color")
    losses = {name: read_losses(path)["train/loss"] for name, path in named.items()}
    for name, found in draw(options.output, losses, options.title).items():
        print(f"{name}: median distance {np.median(found):.2%}, largest {np.max(found):.2%}")


def draw(
    path: Path, losses: dict[str, tuple[np.ndarray, np.ndarray]], title: str
) -> dict[str, np.ndarray]:
    """Writes the plot; returns each run's distances from the first, f64 [steps]."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    (first, (steps, values)), *others = losses.items()
    upper.plot(steps, values, color=COLORS[0], label=first, linewidth=3.0, alpha=0.35)
    reference = dict(zip(steps, values, strict=True))
    distances = {}
    for (name, (steps, values)), color in zip(others, COLORS[1:], strict=False):
        upper.plot(steps, values, color=color, label=name, linewidth=1.1)
        mine = dict(zip(steps, values, strict=True))
        shared = [step for step in mine if step in reference]
        distances[name] = np.array([abs(mine[step] / reference[step] - 1) for step in shared])
        lower.plot(shared, distances[name], color=color, linewidth=1.1)
    label_panels(upper, lower, title, f"relative distance\nto {first}")
    lower.set_yscale("log")
    write_png(figure, path)
    return distances


def label_panels(upper: "Axes", lower: "Axes", title: str, below: str) -> None:
    """Writes the words of two panels that have been drawn: losses, and under them differences."""
    upper.set_title(title, fontsize=FONT + 1, loc="left")
    upper.set_ylabel("training loss", fontsize=FONT)
    upper.set_yscale("log")
    upper.legend(fontsize=FONT, frameon=False)
    lower.set_ylabel(below, fontsize=FONT)
    lower.set_xlabel("step", fontsize=FONT)
    for axes in (upper, lower):
        axes.tick_params(labelsize=FONT - 1)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
