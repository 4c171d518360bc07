"""Stage 1 on digits with and without a discriminator: trains, measures, draws; one seed.

    python launch/stage1_digits.py --work=runs/stage1_digits/seed0 --seed=0 [--steps=1600 --tau=0.8]

Three decoders: L1 alone ("l1"), a discriminator that is shown reconstructions of clean tokens as
in the reference ("gan_clean"), and one that is shown those of noisy tokens ("gan_noisy"). Prints
one JSON line: for each, decoding clean and noisy tokens, the sharpness relative to the real images
(evaluation/sharpness.py), PSNR, and the Frechet distance of pixels to the real images; and whether
all losses stayed finite. Pictures go to WORK. Run again after an interruption: finished steps are
not repeated. Minutes on a CPU.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

CURVES = {
    "reconstruction: mean |error|": ("train/l1", "val_ema/loss"),
    "discriminator: hinge loss": ("train/discriminator_loss",),
    "mean logits": ("train/logits_real", "train/logits_fake"),
    "adaptive weight": ("train/adaptive_weight",),
}
RUNS = {  # name -> flags beside the lengths
    "l1": ["--config.gan.weight=0.0"],
    "gan_clean": ["--config.gan.fakes=clean"],
    "gan_noisy": ["--config.gan.fakes=noisy"],
}
SHOWN = 16
NOISE_SEED = 0


def main() -> None:
    """Trains the encoder and the two decoders, then reports on the decoders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1600, help="of stage 1; the rest scales")
    parser.add_argument("--tau", type=float, default=0.8, help="noise on tokens, trained and shown")
    arguments = parser.parse_args()
    work, steps = arguments.work, arguments.steps
    seed = f"--config.seed={arguments.seed}"
    train("encoder_digits", work / "encoder", seed)
    lengths = {
        "optim.max_steps": steps,
        "optim.decay_end_step": steps,
        "gan.discriminator_start": steps * 6 // 16,
        "gan.start": steps // 2,
        "gan.decay_end_step": steps * 10 // 16,
        "decoder.noise_tau": arguments.tau,
    }
    common = [seed, f"--config.encoder.checkpoint={work / 'encoder'}"]
    common += [f"--config.{name}={value}" for name, value in lengths.items()]
    for run, flags in RUNS.items():
        train("rae_digits_gan", work / run, *common, *flags)
    settings = {"seed": arguments.seed, "steps": steps, "tau": arguments.tau}
    print(json.dumps(settings | report(work)))


def train(config: str, workdir: Path, *flags: str) -> None:
    """Runs --mode=train."""
    command = [sys.executable, "-m", "rae_dit.main", f"--config=configs/{config}.py"]
    subprocess.run([*command, f"--workdir={workdir.absolute()}", *flags], cwd=ROOT, check=True)


def report(work: Path) -> dict[str, object]:
    """The figures of all decoders; draws curves and reconstructions."""
    from rae_dit.evaluation.canvas import resize, write_mosaic

    rows: list[np.ndarray] = []
    names: list[str] = []
    found: dict[str, object] = {"finite": True}
    drawn = [name for curves in CURVES.values() for name in curves]
    for run in RUNS:
        images, results = reconstructions(work / run)
        if not rows:
            rows.append(images)
            names.append("original")
        for tokens, result in results.items():
            found[f"{run}_{tokens}"] = figures(result, images)
            rows.append(result)
            names.append(f"{run}, {tokens} tokens")
        lines = (work / run / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        found["finite"] &= all(None not in record.values() for record in records)
        if run != "l1":
            draw_curves(work / f"curves_{run}.png", records)
            last = {name.removeprefix("train/"): round(records[-1][name], 4) for name in drawn}
            found[f"{run}_last"] = last
    shown = [[resize(image) for image in row[:SHOWN]] for row in rows]
    write_mosaic(work / "reconstructions.png", shown, names, title=None, captions=())
    return found


def reconstructions(workdir: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Held-out images and what the decoder of a run's EMA makes of their tokens, in [0, 1]."""
    import dataclasses

    import jax
    from flax import nnx

    from rae_dit import loading, records
    from rae_dit.autoencoder.step import add_noise
    from rae_dit.data.transforms import to_float
    from rae_dit.runs import read_config
    from rae_dit.training.sharding import make_mesh

    config = read_config(workdir)
    decoder = dataclasses.replace(config.decoder, checkpoint=str(workdir))
    config = dataclasses.replace(config, decoder=decoder)
    graph, parameters = loading.load_rae(config, make_mesh(1), decoder=True)
    source = records.held_out(config)
    images = to_float(np.stack([source[number]["image"] for number in range(len(source))]))

    def both(parameters, images):
        rae = nnx.merge(graph, parameters)
        clean = rae.tokens(images)
        noisy = add_noise(jax.random.key(NOISE_SEED), clean, tau=config.decoder.noise_tau)
        return {"clean": rae.decode_tokens(clean), "noisy": rae.decode_tokens(noisy)}

    results = jax.jit(both)(parameters, images)
    return images, {name: np.clip(result, 0, 1) for name, result in results.items()}


def figures(result: np.ndarray, images: np.ndarray) -> dict[str, float]:
    """What is said of one set of reconstructions."""
    from rae_dit.evaluation.digits import pixel_features
    from rae_dit.evaluation.frechet import Moments, frechet_distance
    from rae_dit.evaluation.reconstruction import psnr
    from rae_dit.evaluation.sharpness import sharpness

    moments = [Moments.of(pixel_features(x)) for x in (result, images)]
    values = {
        "sharpness": sharpness(result, images),
        "psnr": float(np.mean(psnr(result, images))),
        "frechet": frechet_distance(*moments),
    }
    return {name: round(value, 4) for name, value in values.items()}


def draw_curves(path: Path, records: list[dict[str, float]]) -> None:
    """One panel for each entry of CURVES."""
    from matplotlib.figure import Figure

    from rae_dit.evaluation.canvas import write_png

    figure = Figure(figsize=(4 * len(CURVES), 3), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(CURVES)), CURVES.items(), strict=True):
        for name in names:
            points = [(record["step"], record[name]) for record in records if name in record]
            axes.plot(*zip(*points, strict=True), label=name, linewidth=1)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("step", fontsize=8)
        axes.legend(fontsize=7)
    write_png(figure, path)


if __name__ == "__main__":
    main()
