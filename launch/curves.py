"""Loss curves of runs: reads metrics.jsonl and draws a panel for each run."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rae_dit.evaluation.image_grid import DPI, FAINT, FONT, INK, png_path, write_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's color-blind-safe blue and vermilion.
TRAIN, VALIDATION = "#0072B2", "#D55E00"
APART = 0.09  # least distance of two words at the right edge, as a fraction of the panel's height


def loss_curves(
    path: str | os.PathLike[str],
    curves: Mapping[str, str | os.PathLike[str]],
    *,
    units: Mapping[str, str] | None = None,
) -> None:
    """Writes a PNG with one panel per run: training and validation loss over steps, log scale.

    `draw_losses` describes the lines.

    Args:
        path: where the picture goes; ends in .png, missing folders are made.
        curves: title of each run -> its metrics.jsonl, as `read_losses` takes it.
        units: title -> unit of that run's loss, such as "nats"; None leaves the axis at "loss".

    Raises:
        FileNotFoundError: a metrics.jsonl does not exist.
        ValueError: no runs, units for other runs, not .png, or what `read_losses` raises.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    path = png_path(path)
    if not curves:
        raise ValueError("loss_curves: got no runs; expected at least one")
    if units is not None and set(units) != set(curves):
        raise ValueError(f"loss_curves: got units for {sorted(units)}; expected {sorted(curves)}")
    apart = ConstrainedLayoutEngine(wspace=0.08)  # so that a last value keeps off the next axis
    figure = Figure(figsize=(4.4 * len(curves), 3.2), dpi=DPI, layout=apart)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (title, file) in zip(panels, curves.items(), strict=True):
        axes.set_title(title, fontsize=FONT + 1, loc="left", color=INK, parse_math=False)
        unit = "" if units is None else f" ({units[title]})"
        axes.set_ylabel(f"loss{unit}", fontsize=FONT, color=INK)
        axes.set_xlabel("step (optimizer updates)", fontsize=FONT, color=INK)
        draw_losses(axes, read_losses(file))
    write_png(figure, path)


def read_losses(path: str | os.PathLike[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads the two losses out of a metrics.jsonl.

    Args:
        path: the file; one object {"step": …, "train/loss": …, "val/loss": …} per line, a
            loss may be absent, or null (not finite). An incomplete last line (of a run
            killed while writing) is skipped.

    Returns:
        {"train/loss" and/or "val/loss": (steps i64 [k], values f64 [k])} in file order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line before the last is broken, or no line holds either loss.
    """
    lines = Path(path).read_text("utf-8", errors="replace").splitlines()
    found: dict[str, list[tuple[int, float]]] = {"train/loss": [], "val/loss": []}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):
                break
            record = None
        if not isinstance(record, dict) or "step" not in record:
            raise ValueError(
                f"{path}, line {number}: got {line[:80]!r}; expected one JSON object with a 'step'"
            )
        for name, points in found.items():
            if name in record:
                value = record[name]  # null is how a loss that is not finite is written
                points.append((int(record["step"]), np.nan if value is None else float(value)))
    losses = {
        name: (np.array([s for s, _ in points], np.int64), np.array([v for _, v in points]))
        for name, points in found.items()
        if points
    }
    if not losses:
        raise ValueError(
            f"{path}: got {len(lines)} lines without 'train/loss' or 'val/loss'; expected the "
            "metrics.jsonl of a training run"
        )
    return losses


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Computes the centered mean over 2 width + 1 neighbors, fewer at the ends.

    Args:
        values: f64 [k]; NaN counts as absent.
        width: neighbors on each side, >= 0.

    Returns:
        f64 [k]; NaN where all neighbors are.
    """
    present = np.isfinite(values)
    ones = np.ones(2 * width + 1)
    # "full" and a cut, because "same" would return the length of the window when that is longer.
    total = np.convolve(np.where(present, values, 0.0), ones, "full")[width : width + len(values)]
    number = np.convolve(present.astype(np.float64), ones, "full")[width : width + len(values)]
    return np.divide(total, number, out=np.full(len(values), np.nan), where=number > 0.5)


def draw_losses(axes: "Axes", losses: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Draws a run's losses over steps on a log scale.

    Training is a thin line (every logged value) under a smooth one (centered mean over a twentieth
    of the log); validation is thicker, with a dot per pass. Each line ends in its name and last
    value. Values a log scale cannot show (NaN, infinity, <= 0) are gaps.

    Args:
        axes: an empty panel; its title and axis labels are left to the caller.
        losses: from `read_losses`.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    ends: list[tuple[str, str, float]] = []  # word, color, height in the unit of the loss
    for name, (steps, values) in losses.items():
        shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
        if name == "train/loss":
            word, color = "train", TRAIN
            width = max(len(shown) // 40, 2) if len(shown) >= 20 else 0
            line = np.where(np.isnan(shown), np.nan, smooth(shown, width))
            axes.plot(steps, shown, color=color, linewidth=0.6, alpha=0.4, label="train, each")
            axes.plot(steps, line, color=color, linewidth=1.4, label="train, smooth")
        else:
            word, color = "validation", VALIDATION
            line = shown
            dots = "o" if len(shown) <= 40 else ""  # more would merge into a sausage
            (drawn,) = axes.plot(steps, line, color=color, linewidth=2.0, label="validation")
            drawn.set(marker=dots, markersize=4, clip_on=False)
        drawable = line[np.isfinite(line)]
        height = float(drawable[-1]) if len(drawable) else np.nan
        # A run that ended in NaN says so, beside the last point that could be drawn.
        last = float(line[-1]) if np.isfinite(line[-1]) else float(values[-1])
        ends.append((f"{word} {last:.3g}", color, height))
    axes.set_yscale("log")
    axes.set_xlim(0, max(1, *(int(steps.max()) for steps, _ in losses.values())))
    low, high = axes.get_ylim()
    # Powers of ten alone would leave a panel that spans less than two of them without ticks.
    few = high / low < 10
    axes.yaxis.set_major_locator(MaxNLocator(5) if few else LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(labelsize=FONT - 1, colors=FAINT)
    axes.tick_params(which="minor", left=False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)

    # Words stand at the height of their last point, in fractions of the panel, or mid-way if none.
    ends = [
        (word, color, 0.5 if np.isnan(value) else float(np.log(value / low) / np.log(high / low)))
        for word, color, value in ends
    ]
    ends.sort(key=lambda end: end[2])
    heights = [height for _, _, height in ends]
    if len(heights) == 2 and heights[1] - heights[0] < APART:
        middle = sum(heights) / 2
        heights = [middle - APART / 2, middle + APART / 2]
    for (word, color, _), height in zip(ends, heights, strict=True):
        text = axes.text(1.02, height, word, color=color, fontsize=FONT, va="center")
        text.set_transform(axes.transAxes)
