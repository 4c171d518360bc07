"""Collects the results of the quickstart: metrics.json, three figures, a table."""

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from launch.curves import loss_curves
from rae_dit.storage.files import write_json


def main() -> None:
    """Reads WORK/{encoder,rae,dit} and writes into WORK."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seconds", type=int, required=True, help="duration of all steps")
    arguments = parser.parse_args()
    work: Path = arguments.work

    generation = json.loads((work / "dit" / "evaluation.json").read_text())
    reconstruction = json.loads((work / "rae" / "reconstruction.json").read_text())
    metrics = {
        "encoder": {"val_accuracy": last(work / "encoder", "val_ema/accuracy")},
        "reconstruction": reconstruction,
        "generation": generation,
        "seconds": {"total": arguments.seconds},
    }
    write_json(work / "metrics.json", metrics)
    shutil.copyfile(work / "dit" / "samples_guided.png", work / "samples.png")
    shutil.copyfile(work / "rae" / "reconstructions.png", work / "reconstructions.png")
    runs = {"encoder": "encoder", "decoder (stage 1)": "rae", "DiT^DH (stage 2)": "dit"}
    loss_curves(
        work / "loss_curves.png",
        {title: work / name / "metrics.jsonl" for title, name in runs.items()},
        units={
            "encoder": "cross entropy",
            "decoder (stage 1)": "mean |error|",
            "DiT^DH (stage 2)": "mean square",
        },
    )
    rows = [
        ("encoder: accuracy on held-out digits", metrics["encoder"]["val_accuracy"]),
        ("reconstruction: L1 on held-out digits", reconstruction["l1"]),
        ("generation: class accuracy, guided", generation["class_accuracy_guided"]),
        ("generation: class accuracy, unguided", generation["class_accuracy_unguided"]),
        ("    the classifier on held-out real digits", generation["class_accuracy_real"]),
        ("generation: Frechet distance, guided", generation["frechet_guided"]),
        ("generation: Frechet distance, unguided", generation["frechet_unguided"]),
        ("    real digits against held-out real digits", generation["frechet_real"]),
    ]
    print()
    for name, value in rows:
        print(f"{name:<48}{value:8.3f}")
    print(f"{'seconds, everything':<48}{arguments.seconds:8d}")
    print(f"\nLook at  {work}/samples.png  {work}/reconstructions.png  {work}/loss_curves.png")
    python = sys.executable.removeprefix(f"{Path.cwd()}/")
    print(f"Try it   '{python}' -m rae_dit.demo {work}    (after '{python}' -m pip install gradio)")
    print(f"Numbers  {work}/metrics.json    TensorBoard  tensorboard --logdir {work}")


def last(run: Path, name: str) -> float:
    """Returns the newest value of a metric in a run's metrics.jsonl."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    values = [record[name] for record in map(json.loads, lines) if name in record]
    return float(values[-1])


if __name__ == "__main__":
    main()
