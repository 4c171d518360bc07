r"""Stage 1 on digits with and without a discriminator: training, figures and plots of one seed.

    python launch/campaigns/stage1_digits.py --work=runs/stage1_digits/seed0 --seed=0 \
        [--steps=640 --tau=3]

Two decoders of one encoder: L1 alone ("l1"), and with a discriminator that is shown reconstructions
of noisy tokens ("gan"). Prints one JSON line: for each, decoding clean and noisy tokens of held-out
digits, the sharpness relative to the real images (launch/campaigns/sharpness.py), PSNR, the Frechet
distance of pixels to the real images, and the share that a digit classifier reads correctly; and
whether all losses stayed finite. Pictures go to WORK. Run again after an interruption: finished
steps are not repeated. Minutes on a CPU.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rae_dit.data.sources import Source

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

CURVES = {  # title -> metrics, drawn full and dashed
    "L1 on noisy tokens": ("train/loss",),
    "discriminator: hinge loss": ("train/discriminator_loss",),
    "mean logit: real, fake (dashed)": ("train/logits_real", "train/logits_fake"),
    "adaptive weight": ("train/adaptive_weight",),
}
RUNS = {  # name -> flags beside the lengths, and its color in pictures
    "l1": (["--config.gan.weight=0.0"], "#222222"),
    "gan": ([], "#ee6677"),
}
SHOWN = 16
ENLARGEMENT = 8
NOISE_SEED = 0


def main() -> None:
    """Trains the encoder and the decoders, then reports on the decoders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=640, help="of stage 1; the rest scales")
    parser.add_argument("--tau", type=float, default=3.0, help="noise on tokens, trained and shown")
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    settings = {"seed": arguments.seed, "steps": arguments.steps, "tau": arguments.tau}
    train("encoder_digits", work / "encoder", f"--config.seed={arguments.seed}")
    for run in RUNS:
        train_decoder(work, run, **settings)
    print(json.dumps(settings | report(work)))


def train_decoder(work: Path, run: str, *, seed: int, steps: int, tau: float) -> None:
    """Trains the decoder of one of RUNS, with lengths in proportion to `steps`."""
    values = {
        "seed": seed,
        "encoder.checkpoint": work / "encoder",
        "optim.max_steps": steps,
        "optim.decay_end_step": steps,
        "gan.discriminator_start": steps * 6 // 16,
        "gan.start": steps // 2,
        "gan.decay_end_step": steps * 10 // 16,
        "decoder.noise_tau": tau,
    }
    flags = [f"--config.{name}={value}" for name, value in values.items()]
    train("rae_digits_gan", work / run, *flags, *RUNS[run][0])


def train(config: str, workdir: Path, *flags: str) -> None:
    """Runs --mode=train."""
    command = [sys.executable, "-m", "rae_dit.main", f"--config=configs/{config}.py"]
    subprocess.run([*command, f"--workdir={workdir}", *flags], cwd=ROOT, check=True)


def report(work: Path) -> dict[str, object]:
    """Returns the figures of all decoders; plots curves and reconstructions."""
    from rae_dit.evaluation.image_grid import write_mosaic

    found: dict[str, object] = {"finite": True}
    curves: dict[str, list[dict[str, float]]] = {}
    rows: dict[str, dict[str, np.ndarray]] = {"noisy": {}, "clean": {}}
    for run in RUNS:
        images, labels, results = reconstructions(work / run)
        for tokens, result in results.items():
            found[f"{run}_{tokens}"] = figures(result, images, labels)
            rows[tokens][f"{run}, {tokens} tokens"] = result
        lines = (work / run / "metrics.jsonl").read_text().splitlines()
        curves[run] = [json.loads(line) for line in lines]
        found["finite"] &= all(None not in record.values() for record in curves[run])
    drawn = {"original": images} | rows["noisy"] | rows["clean"]
    draw_curves(work / "curves.png", curves)
    # Squares, since a smooth enlargement would hide what this is about.
    cells = [[enlarged(image) for image in row[:SHOWN]] for row in drawn.values()]
    write_mosaic(work / "reconstructions.png", cells, list(drawn), captions=())
    return found


def enlarged(image: np.ndarray) -> np.ndarray:
    """Enlarges an image in [0, 1] to uint8, every pixel a square."""
    levels = np.rint(image * 255).astype(np.uint8)
    return levels.repeat(ENLARGEMENT, axis=0).repeat(ENLARGEMENT, axis=1)


def reconstructions(workdir: Path) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Returns held-out images, labels and reconstructions by the run's EMA decoder, in [0, 1]."""
    import dataclasses

    import jax
    from flax import nnx

    from rae_dit.objectives.reconstruction import add_noise
    from rae_dit.setup import data, weights
    from rae_dit.training.sharding import make_mesh
    from rae_dit.workdir import read_config

    config = read_config(workdir)
    decoder = dataclasses.replace(config.decoder, checkpoint=str(workdir))
    config = dataclasses.replace(config, decoder=decoder)
    graph, parameters = weights.place_rae(config, make_mesh(1), decoder=True)
    source = data.held_out(config)
    images, labels = stacked(source)

    def both(parameters, images):
        rae = nnx.merge(graph, parameters)
        clean = rae.tokens(images)
        noisy = add_noise(jax.random.key(NOISE_SEED), clean, tau=config.decoder.noise_tau)
        return {"clean": rae.decode_tokens(clean), "noisy": rae.decode_tokens(noisy)}

    results = jax.jit(both)(parameters, images)
    return images, labels, {name: np.clip(result, 0, 1) for name, result in results.items()}


def stacked(source: "Source") -> tuple[np.ndarray, np.ndarray]:
    """Returns all images in [0, 1] and labels of a source."""
    from rae_dit.data.transforms import to_float

    every = [source[number] for number in range(len(source))]
    images = to_float(np.stack([record["image"] for record in every]))
    return images, np.asarray([record["label"] for record in every])


def figures(result: np.ndarray, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the figures of one set of reconstructions."""
    from launch.campaigns.sharpness import sharpness
    from rae_dit.data.sources import digits
    from rae_dit.evaluation.digits import DigitClassifier, pixel_features
    from rae_dit.evaluation.metrics.frechet_distance import Moments, frechet_distance
    from rae_dit.evaluation.reconstruction import psnr

    moments = [Moments.of(pixel_features(x)) for x in (result, images)]
    classifier = DigitClassifier.fit(*stacked(digits("train", images.shape[1])))
    values = {
        "sharpness": sharpness(grey(result), grey(images)),
        "psnr": float(np.mean(psnr(result, images))),
        "frechet": frechet_distance(*moments),
        "class_accuracy": classifier.accuracy(result, labels),
    }
    return {name: round(value, 4) for name, value in values.items()}


def grey(images: np.ndarray) -> np.ndarray:
    """Averages over channels: color noise would count as sharpness, and digits are gray."""
    return images.mean(axis=-1, keepdims=True)


def draw_curves(path: Path, curves: dict[str, list[dict[str, float]]]) -> None:
    """Plots one panel for each entry of CURVES, one color for each run."""
    from matplotlib.figure import Figure

    from rae_dit.evaluation.image_grid import write_png

    figure = Figure(figsize=(11, 6), dpi=100, layout="constrained")
    for axes, (title, names) in zip(figure.subplots(2, 2).flat, CURVES.items(), strict=True):
        for run, (_, color) in RUNS.items():
            for name, style in zip(names, ("-", "--"), strict=False):
                # What is not computed, before its start or at all, is 0 or missing.
                points = [(line["step"], line[name]) for line in curves[run] if line.get(name)]
                if points:
                    label = run if style == "-" else None
                    axes.plot(*zip(*points, strict=True), style, color=color, label=label)
        axes.set_title(title, fontsize=11, loc="left")
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    write_png(figure, path)


if __name__ == "__main__":
    main()
