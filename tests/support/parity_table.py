"""Distances of our training steps from the reference's, as Markdown.

    PYTHONPATH=.:tests JAX_PLATFORMS=cpu python -m support.parity_table [DIRECTORY]

DIRECTORY has other recordings of these names (golden/make_trajectories.py).
"""

import sys
from pathlib import Path

from support import trajectories
from support.replay import distances, errors, replay


def rows(directory: Path) -> list[dict[str, str]]:
    """Measures every recording: {column: cell}."""
    found = []
    for name in trajectories.NAMES:
        recording = trajectories.read(name, directory)
        start = trajectories.start(recording)
        steps = replay(start)
        measured = errors(steps, recording) | distances(start, steps, recording)
        cells = {key: f"{value:.0e}".replace("e-0", "e-") for key, value in measured.items()}
        found.append({"recording": name.removeprefix("trajectory_")} | cells)
    return found


def table(rows: list[dict[str, str]], columns: list[str]) -> str:
    """Formats rows; a cell that a row lacks is a dash."""
    lines = [columns, ["---"] * len(columns)]
    lines += [[row.get(column, "–") for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    measured = rows(Path(sys.argv[1]) if sys.argv[1:] else trajectories.TRAJECTORIES)
    states = ["change_1", "change_4", "change_16", "ema_change_16"]
    print(table(measured[:2], ["recording", "loss", "gradient_norm", "lr", *states]))
    states = [f"change_{step}/{part}" for part in ("decoder", "heads") for step in (1, 4)]
    states += ["change_4/heads/vectors", "ema_change_4/decoder"]
    print("\n" + table(measured[2:], ["recording", *states]))
    scalars = ["l1", "lpips", "gan", "adaptive_weight", "gradient_norm", "logits_fake"]
    scalars += ["discriminator_loss", "discriminator_gradient_norm"]
    print("\n" + table(measured[2:], ["recording", *scalars]))
