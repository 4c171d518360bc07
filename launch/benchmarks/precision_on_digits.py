r"""Precisions compared on digits: training to the end over seeds, and sampling of what was trained.

    python launch/benchmarks/precision_on_digits.py WORKDIR --precisions bf16 fp8 \
        --sampled bf16 fp8 --seeds 0 1 2 [--frozen DIRECTORY] [--in_process | --jobs 2]

Each run is configs/dit_digits.py to its end, equal but for `precision`; of a seed all runs share
encoder, decoder and statistics (trained into DIRECTORY if they are not there), initial weights,
order of images, times and noise. What is trained is sampled and scored as that config says, guided
and unguided, in every precision of --sampled: the first of --precisions is that of the network, and
another one is `sample.precision`. One JSON line a run goes to WORKDIR/precision.jsonl, its losses
to WORKDIR/PRECISION-seedN.jsonl. The same command does what is left and prints the table.

A run is a process of its own on one CPU core; with --in_process all are in this one, one after
another on its device; those of a precision share programs, those of a seed what was read.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.benchmarks.digits import autoencoder, read_lines, run_python

SCORES = {"class_accuracy": "class accuracy", "frechet": "Frechet distance"}


def main() -> None:
    """Does what the command line asks for and is not in precision.jsonl yet; prints a table."""
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    results = options.work / "precision.jsonl"
    done = {(line["trained"], line["seed"]) for line in read_lines(results)}
    # Seeds outside, so that an early end leaves whole seeds.
    wanted = [
        (precision, seed)
        for seed in options.seeds
        for precision in options.precisions
        if (precision, seed) not in done
    ]
    if options.in_process:
        run_here(wanted, results, options)
    elif wanted:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            seeds = sorted({seed for _, seed in wanted})
            list(pool.map(lambda seed: autoencoder(options.frozen, "", seed), seeds))
            for job in [pool.submit(run_beside, *pair, options) for pair in wanted]:
                job.result()
    print(table(read_lines(results)))


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp8"])
    parser.add_argument("--sampled", nargs="+", default=["bf16", "fp8"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--frozen", type=Path, help="of autoencoders; WORKDIR/frozen by default")
    parser.add_argument("--steps", type=int, help="the config's by default")
    parser.add_argument("--samples", type=int, help="the config's by default")
    parser.add_argument("--in_process", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--network", help="precision of the sampled network; default the first")
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.frozen = (options.frozen or options.work / "frozen").resolve()
    options.network = options.network or options.precisions[0]
    return options


def run_beside(precision: str, seed: int, options: argparse.Namespace) -> None:
    """Does one run in a process of one core, whose output goes to a file."""
    command = [
        *(__file__, str(options.work), "--in_process"),
        *("--precisions", precision, "--seeds", str(seed), "--network", options.network),
        *("--sampled", *options.sampled, "--frozen", str(options.frozen)),
    ]
    for name in ("steps", "samples"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name}", str(value)]
    run_python(options.work / f"{precision}-seed{seed}.log", *command)


def run_here(wanted: Sequence[tuple[str, int]], results: Path, options: argparse.Namespace) -> None:
    """Does runs one after another in this process."""
    import jax

    from launch.benchmarks.lean_training import read_batches, train, write_lines
    from rae_dit.compiler import use_compile_cache
    from rae_dit.setup.evaluation import make_feature_extractor
    from rae_dit.setup.run import open_run
    from rae_dit.training.run import Run
    from rae_dit.training.sharding import make_mesh

    first: dict[str, Run] = {}  # of each precision, whose programs the other seeds use
    batches: dict[int, list[dict]] = {}  # of one seed, 49 MB
    extractor = None
    for precision, seed in wanted:
        begun = time.perf_counter()
        config = config_of(precision, seed, autoencoder(options.frozen, "", seed), options)
        if not first:
            use_compile_cache(config.compute.compile_cache)
            extractor = make_feature_extractor(config)
        run = open_run(config, make_mesh(1))
        shared = first.setdefault(precision, run).program
        program = run.program._replace(step=shared.step, validate=shared.validate)
        run = run._replace(program=program)
        if seed not in batches:
            batches = {seed: list(read_batches(run))}
        trained = train(run, batches[seed])
        at_end = time.perf_counter()
        held_out = held_out_losses(run, trained.state)
        write_lines(
            options.work / f"{precision}-seed{seed}.jsonl",
            [*trained.lines[:-1], trained.lines[-1] | held_out],
        )
        line = {
            "trained": precision,
            "seed": seed,
            "steps": run.config.optim.max_steps,
            "skipped": int(trained.state.bad_steps),
            "train_loss": mean_of_last_tenth([x["train/loss"] for x in trained.lines]),
            **held_out,
            "sampled": scores(run, trained.state.ema, extractor, options),
            "seconds_per_step": round(trained.seconds_per_step, 5),
            "seconds": {
                "training": round(at_end - begun, 1),
                "scores": round(time.perf_counter() - at_end, 1),
            },
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
        }
        with results.open("a") as output:
            print(json.dumps(line), file=output, flush=True)
        print(json.dumps(line), flush=True)


def config_of(precision: str, seed: int, frozen: list[str], options: argparse.Namespace) -> Any:
    """Returns the config of a run.

    Args:
        precision: of the training.
        seed: of the run.
        frozen: flags that name encoder, statistics and decoder.
        options: of the command line.
    """
    from configs import dit_digits
    from rae_dit.config import from_config_dict

    values = dit_digits.get_config()
    paths = dict(flag.removeprefix("--config.").split("=", 1) for flag in frozen)
    values.encoder.checkpoint = paths["encoder.checkpoint"]
    values.encoder.statistics = paths["encoder.statistics"]
    values.decoder.checkpoint = paths["decoder.checkpoint"]
    values.precision, values.seed = precision, seed
    values.metrics.telemetry = False
    values.evaluate.reference_cache = str(options.work / "references")
    if options.steps is not None:
        values.optim.max_steps = values.optim.decay_end_step = options.steps
    if options.samples is not None:
        values.evaluate.num_samples = options.samples
    return from_config_dict(values)


def held_out_losses(run: Any, state: Any) -> dict[str, float]:
    """Measures the losses that a run logs of its held-out images: "val/loss", "val_ema/loss"."""
    from launch.benchmarks.lean_training import matmul_precision
    from rae_dit.training.hooks import validation_hook

    with matmul_precision(run.config):
        return dict(validation_hook(run, lambda: None).call(int(state.step), state, {}))


def scores(
    run: Any, ema: Any, extractor: Any, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Samples and scores an EMA: precision of sampling -> {"frechet_guided": ..., ...}."""
    from rae_dit.modes.evaluate import guidances
    from rae_dit.setup.evaluation import score
    from rae_dit.setup.hooks import ema_generator

    network = dataclasses.replace(run.config, precision=options.network)
    generator = ema_generator(network, run.mesh, run.frozen)(ema)
    found: dict[str, dict[str, float]] = {}
    for precision in options.sampled:
        other = None if precision == options.network else precision
        sample = dataclasses.replace(network.sample, precision=other)
        config = dataclasses.replace(network, sample=sample)
        found[precision] = {
            f"{name}_{suffix}": value
            for suffix, guided in guidances(config).items()
            for name, value in score(generator, extractor, guided, options.work).items()
        }
    return found


def mean_of_last_tenth(values: Sequence[float]) -> float:
    """Averages the last tenth, at least one value."""
    return statistics.fmean(values[-max(1, len(values) // 10) :])


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Tells means over seeds and standard deviations, a row for each kind of run and sampling.

    Args:
        lines: of precision.jsonl.
    """
    names = [f"{name}_{suffix}" for name in SCORES for suffix in ("unguided", "guided")]
    titles = [f"{SCORES[n.rsplit('_', 1)[0]]}, {n.rsplit('_', 1)[1]}" for n in names]
    head = ["trained", "sampled", "seeds", "training loss", "held out, EMA", *titles]
    rows = [head, ["---"] * len(head)]
    for trained in dict.fromkeys(line["trained"] for line in lines):
        runs = [line for line in lines if line["trained"] == trained]
        losses = [spread([run[key] for run in runs], 4) for key in ("train_loss", "val_ema/loss")]
        for sampled in runs[0]["sampled"]:
            found = [run["sampled"][sampled] for run in runs]
            cells = [spread([one[name] for one in found], 3) for name in names]
            rows.append([trained, sampled, str(len(runs)), *losses, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def spread(values: Sequence[float], digits: int) -> str:
    """Formats mean and standard deviation; the mean alone for one value."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
