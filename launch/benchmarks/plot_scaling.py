r"""Plot of a training step's time by batch, depth, tokens and GPUs, from measure.py's lines.

    python launch/benchmarks/plot_scaling.py docs/measured/h100_2026-11-26.jsonl \
        --output docs/images/scaling.png

Straight lines are least-squares fits through the points; what they say is printed. The percentages
are images/s per GPU against one GPU of the same machine: weak scaling, the batch growing with them.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rae_dit.evaluation.image_grid import FONT, write_png

BLUE, RED, GRAY = "#0072B2", "#D55E00", "#999999"  # Okabe & Ito, for color-blind readers
GPUS = {
    "XL": ("one of two", "data parallel", "fsdp"),
    "S": ("small, one of two", "small, data parallel", "small, fsdp"),
}
LABELS = ("one GPU", "two, data parallel", "two, FSDP")


def main() -> None:
    """Draws and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("measured", type=Path, help="lines of launch/benchmarks/measure.py")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    for line in draw(options.output, read(options.measured)):
        print(line)


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Reads the lines of training-step measurements, by name."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["measurement"]: line for line in lines if line.get("part") == "train"}


def draw(path: Path, found: dict[str, dict[str, Any]]) -> list[str]:
    """Writes the plot; returns a sentence for each fit and bar."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 6.0), layout="constrained")
    (batch, depth), (tokens, gpus) = figure.subplots(2, 2)
    said = [
        line_through(
            batch,
            "images",
            {found[name]["batch"]: found[name]["ms"] for name in batches(found)},
        ),
        line_through(
            depth,
            "blocks",
            {
                blocks: found[name]["ms"]
                for blocks, name in ((7, "depth 7"), (14, "depth 14"), (28, "batch 64"))
            },
        ),
        *bars(
            tokens,
            {
                "256 px, 128 images": found["train"]["tflops_per_device"],
                "512 px, 32 images": found["512 px"]["tflops_per_device"],
            },
            "model TFLOP/s",
        ),
        *bars(gpus, weak_scaling(found), "images/s per GPU, %"),
    ]
    batch.set_title("a step against its batch", fontsize=FONT + 1, loc="left")
    depth.set_title("against the backbone's depth, batch 64", fontsize=FONT + 1, loc="left")
    tokens.set_title("256 or 1024 tokens an image", fontsize=FONT + 1, loc="left")
    gpus.set_title("batch 128 a GPU, against one GPU", fontsize=FONT + 1, loc="left")
    for axes in (batch, depth, tokens, gpus):
        axes.tick_params(labelsize=FONT - 1)
        axes.spines[["top", "right"]].set_visible(False)
    write_png(figure, path)
    return said


def batches(found: dict[str, dict[str, Any]]) -> list[str]:
    """Returns the names of the lines that differ in batch size alone, smallest first."""
    names = [name for name in found if name.startswith("batch ")] + ["train"]
    return sorted(names, key=lambda name: found[name]["batch"])


def line_through(axes: Any, what: str, points: dict[int, float]) -> str:
    """Plots milliseconds over sizes with a least-squares line from 0 on."""
    sizes, ms = np.array(list(points)), np.array(list(points.values()))
    slope, rest = np.polyfit(sizes, ms, 1)
    ends = np.array([0, sizes[-1]])
    axes.plot(ends, slope * ends + rest, color=GRAY, linewidth=1.0)
    axes.plot(sizes, ms, "o", color=BLUE)
    axes.set(xlim=(0, None), ylim=(0, None), xticks=sizes)
    axes.set_xlabel(what, fontsize=FONT)
    axes.set_ylabel("ms", fontsize=FONT)
    text = f"{rest:.1f} ms + {slope:.2f} ms x {what}"
    axes.text(0.05, 0.9, text, transform=axes.transAxes, fontsize=FONT)
    far = np.max(np.abs(slope * sizes + rest - ms) / ms)
    return f"{what}: {text}, at most {far:.1%} from the points"


def bars(axes: Any, values: dict[str, float], unit: str) -> list[str]:
    """Plots one labelled bar for each value."""
    names = list(values)
    drawn = axes.barh(names, list(values.values()), color=[BLUE, *[RED] * (len(names) - 1)])
    axes.bar_label(drawn, fmt="%.1f", padding=3, fontsize=FONT - 1)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(unit, fontsize=FONT)
    return [f"{name}: {value:.1f} {unit}" for name, value in values.items()]


def weak_scaling(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Returns each GPU's images/s in percent of a single GPU's, by number of GPUs."""
    shares = {}
    for size, names in GPUS.items():
        one = found[names[0]]["images_per_second"]
        for name, label in zip(names[1:], LABELS[1:], strict=True):
            if name in found:
                line = found[name]
                shares[f"{size}: {label}"] = 100 * line["images_per_second"] / line["devices"] / one
    return {"one GPU": 100.0} | shares


if __name__ == "__main__":
    main()
