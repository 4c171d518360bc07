r"""Samples of few-step students beside those of their teacher, from the same noise: table, picture.

    python launch/compare_few_steps.py --teacher=runs/few/dit --output=runs/few \
        "distilled=runs/few/distil" "mid-trained=runs/few/trajectory"

For digits. Writes few_steps.md, few_steps.json and few_steps.png into the output. Accuracy alone
proves little of few steps: the teacher's own single Euler step gives the mean of a class, which a
classifier reads without error. Frechet distance and variance within the classes show it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rae_dit
from rae_dit.evaluation.digits import pixel_features
from rae_dit.evaluation.image_grid import resize, write_mosaic
from rae_dit.evaluation.pipeline import Batch, evaluate_batches
from rae_dit.sampling.codec import decode
from rae_dit.setup import data, models, weights
from rae_dit.setup.evaluation import make_feature_extractor, make_reference
from rae_dit.training.sharding import make_mesh
from rae_dit.workdir import read_config

METRICS = ("class_accuracy", "frechet")
COLUMNS = {
    "evaluations": "evaluations",
    "class_accuracy": "accuracy",
    "frechet": "Fréchet",
    "variance": "variance within classes",
    "distance": "distance to endpoint",
    "seconds": "s per 1,000",
}
TEACHER = {50: "official", 16: "official", 4: "full", 2: "full", 1: "full"}
JUMPS = (1, 2, 4)
SHOWN = 10


def main() -> None:
    """Compares what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("students", nargs="*", help="NAME=WORKDIR")
    parser.add_argument("--teacher", type=Path, required=True, help="workdir of its run")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cfg_scale", type=float, default=2.0, help="of the teacher's guidance")
    parser.add_argument("--samples", type=int, default=1000)
    arguments = parser.parse_args()
    students = dict(student.rsplit("=", 1) for student in arguments.students)
    rows, pictures = compare(
        arguments.teacher, students, cfg_scale=arguments.cfg_scale, samples=arguments.samples
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "few_steps.json").write_text(json.dumps(rows, indent=1))
    table = markdown(rows)
    (arguments.output / "few_steps.md").write_text(table)
    write_mosaic(
        arguments.output / "few_steps.png",
        [[resize(image) for image in images] for images in pictures.values()],
        list(pictures),
        captions=[str(digit) for digit in range(SHOWN)],
    )
    print(f"{table}\nLook at  {arguments.output}/few_steps.png")


def compare(
    teacher: Path, students: dict[str, str], *, cfg_scale: float, samples: int
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Returns a row of figures for each sampler, and its first image of each class."""
    config = read_config(teacher)
    rae = weights.place_rae(config, make_mesh(1, jax.devices()[:1]), decoder=True)
    extractor = make_feature_extractor(config)
    reference = make_reference(config, teacher, extractor)
    shape = (models.latent_grid(config),) * 2 + (config.encoder.hidden_size,)
    noise = np.asarray(jax.random.normal(jax.random.key(7), (samples, *shape)))
    labels = np.arange(samples, dtype=np.int32) % config.data.num_classes
    rows, pictures, endpoint = [], {}, None
    shift = models.latent_shift(config)
    for name, evaluations, sample in samplers(teacher, students, cfg_scale, shift):
        latents = np.asarray(sample(noise, labels))
        endpoint = latents if endpoint is None else endpoint  # the teacher's 50 points come first
        started = time.perf_counter()
        images = np.asarray(decode(*rae, sample(noise, labels)))
        seconds = time.perf_counter() - started
        batches = [Batch(np.arange(samples), images, labels)]
        found = evaluate_batches(METRICS, extractor, reference, iter(batches))
        rows.append(
            {
                "name": name,
                "evaluations": evaluations,
                **found,
                "variance": variance_within(images, labels),
                "distance": float(np.mean((latents - endpoint) ** 2)),
                "seconds": seconds * 1000 / samples,
            }
        )
        pictures[name] = images[:SHOWN]
    source = data.open_source(config, "train")
    real = [source[i] for i in range(len(source))]
    images = np.stack([record["image"] for record in real]) / 255.0
    variance = variance_within(images, np.asarray([record["label"] for record in real]))
    return [*rows, {"name": "real digits", "variance": variance}], pictures


def samplers(
    teacher: Path, students: dict[str, str], cfg_scale: float, shift: float
) -> Iterator[tuple[str, int, Callable[[Any, Any], Any]]]:
    """Yields name, evaluations of a network for each sample, and (noise, labels) -> latents."""
    network = rae_dit.load_ddt(teacher)
    for steps, grid in TEACHER.items():

        def integrate(noise: Any, labels: Any, steps: int = steps, grid: str = grid) -> Any:
            return rae_dit.sample_latents(
                network, noise, labels, steps=steps, grid=grid, shift=shift, cfg_scale=cfg_scale
            )

        updates = steps - (grid == "official")
        unit = "points" if grid == "official" else f"step{'s' * (steps > 1)}"
        yield f"teacher, Euler {steps} {unit}", 2 * updates, integrate
    for name, workdir in students.items():
        student = rae_dit.load_ddt(workdir)
        for steps in JUMPS:

            def jump(noise: Any, labels: Any, steps: int = steps, student: Any = student) -> Any:
                return rae_dit.sample_latents(
                    student, noise, labels, method="mean_flow", steps=steps
                )

            yield f"{name}, {steps} jump{'s' * (steps > 1)}", steps, jump


def variance_within(images: np.ndarray, labels: np.ndarray) -> float:
    """Sums the variance of the 64 gray levels within each class; the mean over classes."""
    levels = pixel_features(images)
    return float(np.mean([levels[labels == k].var(axis=0).sum() for k in np.unique(labels)]))


def markdown(rows: list[dict[str, Any]]) -> str:
    """Formats the rows as a table."""
    lines = ["| |" + "|".join(f" {title} " for title in COLUMNS.values()) + "|"]
    lines.append("|---|" + "---:|" * len(COLUMNS))
    for row in rows:
        cells = [f"{row[name]:.4g}" if name in row else "" for name in COLUMNS]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
