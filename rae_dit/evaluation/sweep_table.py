"""Results of a sweep as a markdown table and as a figure."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from rae_dit.evaluation.image_grid import DPI, FAINT, FONT, INK, png_path, write_png
from rae_dit.evaluation.metrics import metrics_named

# Okabe & Ito's colors, safe for the color-blind, without yellow, too light on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


class Cell(NamedTuple):
    """One combination of a sweep and its metrics."""

    cfg_scale: float
    num_steps: int
    cfg_interval: tuple[float, float]
    metrics: dict[str, float]


def best(cells: Sequence[Cell], metric: str) -> Cell:
    """Returns the cell with the best value of a metric; the first of equals."""
    sign = 1 if lower_is_better(metric) else -1
    return min(cells, key=lambda cell: sign * cell.metrics[metric])


def lower_is_better(metric: str) -> bool:
    """Returns whether a lower value of a metric is better."""
    (kind,) = metrics_named([metric])
    return kind.lower_is_better


def markdown(cells: Sequence[Cell], metric: str) -> str:
    """Formats a table, a row for each cell; the best value of `metric` is bold."""
    metrics = list(cells[0].metrics)
    winner = best(cells, metric)
    rows = [["cfg_scale", "num_steps", "cfg_interval", *metrics]]
    rows.append(["---:"] * len(rows[0]))
    for cell in cells:
        values = [f"{cell.metrics[name]:.4g}" for name in metrics]
        if cell is winner:
            values[metrics.index(metric)] = f"**{values[metrics.index(metric)]}**"
        interval = f"[{cell.cfg_interval[0]:g}, {cell.cfg_interval[1]:g}]"
        rows.append([f"{cell.cfg_scale:g}", str(cell.num_steps), interval, *values])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def draw_sweep(path: str | os.PathLike[str], cells: Sequence[Cell], metric: str) -> None:
    """Writes a PNG of one metric over the guidance scale, a line for each other choice.

    With one scale only, it is drawn over the number of steps. A ring marks the best value. A line
    of one point is a dot.

    Args:
        path: where the picture goes; ends in .png, missing folders are made.
        cells: at least one.
        metric: which of their values.
    """
    from matplotlib.figure import Figure

    over_scale = len({cell.cfg_scale for cell in cells}) > 1 or len(cells) == 1
    lines: dict[str, list[tuple[float, float]]] = {}
    for cell in with_unguided_everywhere(cells):
        where = cell.cfg_scale if over_scale else float(cell.num_steps)
        name = name_of(cell, cells, over_scale=over_scale)
        lines.setdefault(name, []).append((where, cell.metrics[metric]))
    figure = Figure(figsize=(6.4, 4.0), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(lines.items()):
        across, up = zip(*sorted(points), strict=True)
        color = COLORS[number % len(COLORS)]
        style = "-" if number < len(COLORS) else "--"
        axes.plot(
            across, up, style, color=color, linewidth=1.6, marker="o", markersize=4, label=name
        )
    winner, lower = best(cells, metric), lower_is_better(metric)
    where = winner.cfg_scale if over_scale else winner.num_steps
    axes.plot(where, winner.metrics[metric], "o", markersize=11, mfc="none", mec=INK)
    axes.annotate(
        f"best: {winner.metrics[metric]:.4g}",
        (where, winner.metrics[metric]),
        xytext=(0, 11 if not lower else -11),
        textcoords="offset points",
        ha="center",
        va="bottom" if not lower else "top",
        fontsize=FONT - 1,
        color=INK,
    )
    direction = "lower is better" if lower else "higher is better"
    axes.set_ylabel(f"{metric} ({direction})", fontsize=FONT, color=INK)
    axes.set_xlabel("cfg_scale" if over_scale else "num_steps", fontsize=FONT, color=INK)
    axes.margins(x=0.08, y=0.15)
    axes.tick_params(labelsize=FONT - 1, colors=FAINT)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    if len(lines) > 1:
        figure.legend(loc="outside right upper", fontsize=FONT - 1, frameon=False)
    write_png(figure, png_path(path))


def with_unguided_everywhere(cells: Sequence[Cell]) -> list[Cell]:
    """Returns the cells, unguided ones once for each interval, which does not affect them."""
    intervals = list(dict.fromkeys(cell.cfg_interval for cell in cells))
    return [
        cell._replace(cfg_interval=interval)
        for cell in cells
        for interval in (intervals if cell.cfg_scale == 1.0 else [cell.cfg_interval])
    ]


def name_of(cell: Cell, cells: Sequence[Cell], *, over_scale: bool) -> str:
    """Names the line of a cell by the settings in which lines differ."""
    words = []
    if over_scale and len({other.num_steps for other in cells}) > 1:
        words.append(f"{cell.num_steps} steps")
    if len({other.cfg_interval for other in cells}) > 1:
        words.append(f"[{cell.cfg_interval[0]:g}, {cell.cfg_interval[1]:g}]")
    return ", ".join(words) or "all"
