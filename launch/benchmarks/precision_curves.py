r"""Loss curves of DiT^DH-S in several precisions, and of another seed, in one process.

    python launch/benchmarks/precision_curves.py WORKDIR --precisions bf16 fp8 --steps 600

The images are scikit-learn's digits at 256 px, of which a random DINOv2-B makes the latents,
normalized by their statistics: 1,438 pictures of ten classes, so that there is more to learn than a
mean. The runs differ by `precision` alone; one more, in the first precision, has other initial
weights, order, times and noise, and says how far apart curves of equal precision lie. WORKDIR gets
NAME.jsonl of every run (finished ones are not repeated) and curves.png; how far each run is from
the first is printed.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.benchmarks.overlay_runs import COLORS, label_panels
from launch.curves import read_losses, smooth

OTHER_SEED = "other seed"
BAND = "#999999"
LAST = 100  # steps that the printed distance is of


def main() -> None:
    """Trains what is not there yet, draws and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp8"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43], help="one: no band")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, help="that read images")
    parser.add_argument("--dry_run", action="store_true", help="with tiny networks and images")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    seed, *other_seeds = options.seeds
    first = options.precisions[0]
    runs = {name: (name, seed) for name in options.precisions}
    for other_seed in other_seeds[:1]:
        runs[OTHER_SEED] = (first, other_seed)
    files = {
        name: options.work / f"{name.replace(', ', '_').replace(' ', '_')}.jsonl" for name in runs
    }
    if missing := {name: run for name, run in runs.items() if not files[name].exists()}:
        train_all(missing, files, options)
    losses = {name: read_losses(path)["train/loss"][1] for name, path in files.items()}
    for line in draw(options.work / "curves.png", losses, f"DiT^DH-S, batch {options.batch_size}"):
        print(line)


def train_all(
    runs: dict[str, tuple[str, int]], files: dict[str, Path], options: argparse.Namespace
) -> None:
    """Compiles the step of every precision, in threads, and trains run after run."""
    import jax
    import jax.numpy as jnp

    from launch.benchmarks.lean_training import (
        matmul_precision,
        read_batches,
        train,
        write_lines,
    )
    from rae_dit.compiler import use_compile_cache
    from rae_dit.modes.stats import stats
    from rae_dit.setup.run import open_run
    from rae_dit.training.program import build_program
    from rae_dit.training.sharding import batch_sharding, make_mesh

    mesh, seed = make_mesh(1), options.seeds[0]
    configs = {precision: config_of(precision, options) for precision, _ in runs.values()}
    plain = next(iter(configs.values()))
    use_compile_cache(plain.compute.compile_cache)
    statistics = options.work / "statistics.npz"
    if not statistics.exists():
        stats(plain, options.work)
    opened, lowered = {}, {}
    size, side = plain.data.batch_size, plain.data.image_size
    split = batch_sharding(mesh)
    batch = {
        "image": jax.ShapeDtypeStruct((size, side, side, 3), jnp.uint8, sharding=split),
        "label": jax.ShapeDtypeStruct((size,), jnp.int32, sharding=split),
    }
    for precision, config in configs.items():
        encoder = dataclasses.replace(config.encoder, statistics=str(statistics))
        run = open_run(dataclasses.replace(config, encoder=encoder), mesh)
        opened[precision] = run
        with matmul_precision(config):
            lowered[precision] = run.program.step.lower(run.program.abstract, run.frozen, batch)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        compiled = pool.map(lambda each: each.compile(), lowered.values())
        steps = dict(zip(lowered, compiled, strict=True))
    for name, (precision, chosen) in runs.items():
        run = opened[precision]
        create = run.program.create
        if chosen != seed:  # the encoder stays that of the first
            create = build_program(run.task, mesh, seed=chosen).create
        program = run.program._replace(create=create, step=steps[precision])
        config = dataclasses.replace(run.config, seed=chosen)
        run = run._replace(config=config, program=program)
        trained = train(run, read_batches(run))
        write_lines(files[name], trained.lines)
        speed = {"run": name, "seconds_per_step": round(trained.seconds_per_step, 5)}
        speed["device"] = jax.devices()[0].device_kind
        print(json.dumps(speed | {"skipped": int(trained.state.bad_steps)}), flush=True)
        del trained


def config_of(precision: str, options: argparse.Namespace) -> Any:
    """Returns the config of a run without the statistics of its latents."""
    from configs import dit_dino_s
    from rae_dit.config import from_config_dict
    from rae_dit.planning.compiled import without_files

    values = dit_dino_s.get_config()
    values.precision, values.seed = precision, options.seeds[0]
    values.data.update(
        source="digits",
        num_classes=10,
        flip=False,  # a mirrored 2 is not a digit
        batch_size=options.batch_size,
        num_workers=options.workers,
    )
    values.optim.max_steps = options.steps
    values.metrics.telemetry = False
    if options.dry_run:
        values.data.image_size = values.encoder.input_size = 56
        values.encoder.update(hidden_size=32, depth=1, num_heads=2, position_grid=4)
        values.decoder.update(patch_size=14, hidden_size=32, depth=1, num_heads=2)
        values.ddt.update(hidden_size=(32, 64), depth=(2, 1), num_heads=(2, 2))
    return without_files(from_config_dict(values))


def draw(path: Path, losses: dict[str, np.ndarray], title: str) -> list[str]:
    """Draws losses, and relative differences from the first run's; `OTHER_SEED` is a band.

    Args:
        path: of the picture.
        losses: name -> f64 [steps].
        title: of the picture.

    Returns:
        A line of text for each run but the first.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    from rae_dit.evaluation.image_grid import write_png

    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    steps = np.arange(1, len(next(iter(losses.values()))) + 1)
    width = max(1, len(steps) // 40)
    first = next(iter(losses))
    colors = iter(COLORS)
    for name in losses:
        color = BAND if name == OTHER_SEED else next(colors)
        upper.plot(steps, losses[name], color=color, linewidth=0.5, alpha=0.25)
        line = {"color": color, "linewidth": 1.4, "label": name}
        upper.plot(steps, smooth(losses[name], width), **line)
        if name == first:
            continue
        apart = difference(losses[name], losses[first], width)
        if name == OTHER_SEED:
            bound = np.sqrt(smooth(apart**2, 2 * width))
            lower.fill_between(
                steps, -bound, bound, color=BAND, alpha=0.3, linewidth=0, label=f"± {name}"
            )
        lower.plot(steps, apart, **line)
    label_panels(upper, lower, title, f"smoothed difference\nfrom {first}, relative")
    upper.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    upper.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    upper.yaxis.set_minor_locator(NullLocator())
    lower.axhline(0, color=COLORS[0], linewidth=0.8)
    write_png(figure, path)
    return [distance(name, losses[name], losses[first]) for name in losses if name != first]


def difference(mine: np.ndarray, theirs: np.ndarray, width: int) -> np.ndarray:
    """Computes the relative difference of two curves, both smoothed over 2 width + 1 steps."""
    return smooth(mine, width) / smooth(theirs, width) - 1


def distance(name: str, mine: np.ndarray, theirs: np.ndarray) -> str:
    """Says how far a run is from the first: single steps, and the mean of the last ones."""
    single = np.abs(mine / theirs - 1)
    last = np.mean(mine[-LAST:]) / np.mean(theirs[-LAST:]) - 1
    return (
        f"{name}: mean loss of the last {len(mine[-LAST:])} steps {np.mean(mine[-LAST:]):.5f}, "
        f"{last:+.3%}; of single steps median {np.median(single):.2%}, largest {single.max():.2%}"
    )


if __name__ == "__main__":
    main()
