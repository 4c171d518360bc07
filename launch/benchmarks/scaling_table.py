r"""Table and plot of bench_scaling.py's lines.

    python launch/benchmarks/scaling_table.py scaling.jsonl [--plot docs/images/eight_devices.png]

The last column is images/s per device beside one device: 1 is perfect weak scaling. Of checkpoints
it is GiB/s, of the loader how many devices at 415 images/s (XL on an H100) it feeds.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rae_dit.evaluation.image_grid import FONT, write_png

IMAGES_PER_SECOND = 415  # docs/performance.md
MARKERS = "osD^vPX"
Line = dict[str, Any]


def main() -> None:
    """Prints the table; draws the plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("measured", type=Path, help="lines of bench_scaling.py")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    options = parser.parse_args()
    lines = read(options.measured)
    print("\n".join(rows(lines)))
    if options.plot:
        draw(options.plot, lines)


def read(path: Path) -> list[Line]:
    """Reads the lines of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def key(line: Line) -> tuple[Any, ...]:
    """Returns what a line has in common with that of one device."""
    config, part = line["measurement"].split(", ")[:2]
    return config, part, line.get("guidance"), line.get("cfg_scale"), line.get("decoded")


def efficiency(lines: list[Line]) -> Iterator[tuple[Line, float | None]]:
    """Yields lines with images/s, and their share per device of that of one; None without one."""
    timed = [line for line in lines if "images_per_second" in line]
    alone = {key(line): line["images_per_second"] for line in timed if line["devices"] == 1}
    for line in timed:
        one = alone.get(key(line))
        yield line, line["images_per_second"] / line["devices"] / one if one else None


def rows(lines: list[Line]) -> list[str]:
    """Makes the lines of a Markdown table."""
    shares = {id(line): share for line, share in efficiency(lines)}
    found = [("measurement", "batch", "ms", "images/s", "peak GiB", "beside one device")]
    for line in lines:
        name, peak = line["measurement"], str(line.get("peak_gib", ""))
        if rate := line.get("images_per_second"):
            more = [f"{n} {line[n]}" for n in ("guidance", "cfg_scale", "decoded") if n in line]
            share = shares[id(line)]
            ms = line.get("ms", round(1e3 * line.get("seconds", 0)))
            said = "-" if share is None else f"{share:.3f}"
            found.append((", ".join([name, *more]), line["batch"], ms, rate, peak, said))
        elif "gib_per_second" in line:
            name += f": {line['part']}, {line['gib']} GiB"
            speed = f"{line['gib_per_second']} GiB/s"
            found.append((name, "", round(1e3 * line["seconds"]), "", peak, speed))
        elif "ms_a_step" in line:
            spent = ", ".join(f"{kind} {ms}" for kind, ms in line["ms_a_step"].items())
            found.append((f"{name}: trace of one device", "", spent, "", "", ""))
        elif "images_per_second_per_core" in line:
            rate = line["images_per_second_per_core"] * line["cores"]
            name += f": {line['loader']}, {line['workers']} workers"
            found.append((name, "", "", round(rate), "", f"{rate / IMAGES_PER_SECOND:.1f} devices"))
        elif line.get("status"):
            found.append((name, "", "", "", "", f"ended with status {line['status']}"))
    made = [f"| {' | '.join(map(str, row))} |" for row in found]
    return [made[0], "|---" * len(found[0]) + "|", *made[1:]]


def draw(path: Path, lines: list[Line]) -> None:
    """Plots the share of training over the devices, a line for each config and layout."""
    from matplotlib.figure import Figure

    points: dict[str, dict[int, float]] = {}
    for line, share in efficiency(lines):
        config, part, _, layout, *flags = line["measurement"].split(", ")
        if part == "train" and share is not None and line["devices"] > 1:
            layout = layout.split(" 2 x ")[0]  # a hybrid's name has its size
            points.setdefault(", ".join([config, layout, *flags]), {})[line["devices"]] = share
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, of) in enumerate(points.items()):
        marker = MARKERS[number % len(MARKERS)]
        axes.plot([1, *of], [1.0, *of.values()], marker=marker, label=name, linewidth=1.0)
    axes.axhline(1.0, color="#999999", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks := sorted({1, *(n for of in points.values() for n in of)}), ticks)
    axes.set_xlabel("devices", fontsize=FONT)
    axes.set_ylabel("images/s per device, beside one device", fontsize=FONT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=FONT - 2, frameon=False)
    write_png(figure, path)


if __name__ == "__main__":
    main()
