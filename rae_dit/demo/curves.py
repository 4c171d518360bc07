"""Curves of several runs in one picture."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from rae_dit.demo.metrics_log import thinned
from rae_dit.evaluation.image_grid import DPI, FAINT, FONT, INK

POINTS = 1500  # of a curve; more are thinner than a pixel
# Okabe & Ito's colors, which color-blind people tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8a8a00")

Points = Sequence[tuple[int, float]]


def draw_curves(
    curves: Mapping[str, Points], title: str, *, logarithmic: bool
) -> UInt8[np.ndarray, "H W 3"]:
    """Draws values over steps, a line for each run.

    Args:
        curves: run -> (step, value); values that cannot be drawn (NaN; zero or less on a
            logarithmic axis) are gaps.
        title: of the picture.
        logarithmic: whether the axis of values is.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(7.2, 3.4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    drawn = False
    for number, (name, points) in enumerate(curves.items()):
        kept = np.array(thinned(list(points), POINTS), np.float64).reshape(-1, 2)
        steps, values = kept[:, 0], kept[:, 1]
        allowed = np.isfinite(values) & (values > 0 if logarithmic else True)
        if not allowed.any():
            continue
        drawn = True
        color = COLORS[number % len(COLORS)]
        style = "-" if number < len(COLORS) else "--"
        marker = "o" if len(kept) <= 30 else ""
        shown = np.where(allowed, values, np.nan)
        label = f" {name}  {values[-1]:.4g}"  # a space: labels from "_" on are not shown
        axes.plot(steps, shown, style, color=color, marker=marker, markersize=3, label=label)
    axes.set_title(title, loc="left", fontsize=FONT + 1, color=INK, parse_math=False)
    axes.set_xlabel("step", fontsize=FONT, color=INK)
    if drawn:
        if logarithmic:
            axes.set_yscale("log")
        legend = axes.legend(fontsize=FONT - 2, frameon=False, labelcolor=INK)
        for text in legend.get_texts():
            text.set_parse_math(False)
    else:
        axes.text(0.5, 0.5, "nothing yet", transform=axes.transAxes, ha="center", color=FAINT)
    axes.tick_params(labelsize=FONT - 1, colors=FAINT)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return np.asarray(Image.open(buffer).convert("RGB"))
