r"""Today's recipe and RAEv2's on digits, ingredient by ingredient, over several seeds.

    python launch/benchmarks/recipes_on_digits.py WORKDIR --seeds 0 1 2 --jobs 15 \
        [--steps 2000 | --seconds 120]

Each recipe trains for the same number of steps, or for the same time: as many steps as a first run
of 150 says that it makes in so many seconds, its schedule included. It is evaluated as it goes,
without guidance, and at the end with every kind that it has. A run is a process of its own on one
core, so that many fill a machine; one JSON line each goes to WORKDIR/recipes.jsonl. The same
command does what is left.
"""

import argparse
import concurrent.futures
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.benchmarks.digits import autoencoder, read_lines, run

NETWORK = [
    "--config.ddt.conditioning=tokens",
    "--config.ddt.base_depth=1",
    "--config.ddt.use_qknorm=True",
    "--config.ddt.use_pos_embed=False",
    "--config.ddt.train_constants=True",
    "--config.flow.prediction=x",
]
MUON = ["--config.optim.name=muon", "--config.optim.momentum=0.95"]
# Recipe -> (edition of the encoder and decoder, config, changes)
RECIPES = {
    "rae": ("", "dit_digits", []),
    "rae + muon": ("", "dit_digits", MUON),
    "raev2 network": ("", "dit_digits", NETWORK),
    "raev2 network + muon": ("", "dit_digits", NETWORK + MUON),
    "raev2": ("2", "dit2_digits", []),
}


def steps_in(seconds: float, directory: Path, flags: list[str]) -> int:
    """Trains a few steps and returns how many fit into so many seconds, in multiples of 20."""
    short = ["--config.optim.max_steps=150", "--config.optim.decay_end_step=150"]
    run(directory / "log", *flags, f"--workdir={directory}/short", *short)
    lines = read_lines(directory / "short/metrics.jsonl")
    times = [line[SECONDS] for line in lines if SECONDS in line]
    return max(SHORTEST, round(seconds / times[-1] / 20) * 20)


SECONDS = "speed/seconds_per_step"
SHORTEST = 200  # steps: the rate rises for 100


def train(
    work: Path, recipe: str, seed: int, frozen: list[str], options: argparse.Namespace
) -> dict:
    """Trains one DiT^DH and returns its scores by step, and at the end with guidance."""
    _, config, changes = RECIPES[recipe]
    directory = work / f"{recipe.replace(' ', '')}-seed{seed}"
    directory.mkdir(parents=True, exist_ok=True)
    network = [f"--config=configs/{config}.py", *frozen, *changes]
    steps = options.steps
    if options.seconds:
        steps = steps_in(options.seconds, directory, network)
    every = steps // options.evaluations
    base = [
        *network,
        f"--workdir={directory}",
        f"--config.optim.max_steps={steps}",
        f"--config.optim.decay_end_step={steps}",
    ]
    unguided = [
        f"--config.metrics.evaluate_every={every}",
        f"--config.checkpoint.save_every={every}",
        f"--config.metrics.evaluate_samples={options.samples}",
        "--config.sample.cfg_scale=1.0",
        "--config.sample.guidance=cfg",
    ]
    run(directory / "log", *base, *unguided)
    lines = read_lines(directory / "metrics.jsonl")
    times = [line[SECONDS] for line in lines if SECONDS in line]
    scores = [
        {name: line[name] for name in ("step", "eval/class_accuracy", "eval/frechet")}
        for line in lines
        if "eval/frechet" in line
    ]
    result = {
        "recipe": recipe,
        "seed": seed,
        "steps": steps,
        "training_seconds": round(steps * sum(times) / len(times), 1),
        "by_step": scores,
    }
    scale = "--config.sample.cfg_scale"
    guidances = {"cfg": [f"{scale}=2.0", "--config.sample.guidance=cfg"]}
    if recipe not in ("rae", "rae + muon"):
        guidances["internal"] = [f"{scale}=1.78", "--config.sample.guidance=internal"]
    for name, flags in guidances.items():
        judged = [
            "--mode=evaluate",
            f"--config.evaluate.num_samples={options.samples}",
            "--config.evaluate.unguided=False",
        ]
        run(directory / "log", *base, *flags, *judged)
        report = json.loads((directory / "evaluation.json").read_text())
        result[name] = {key: report[key] for key in ("class_accuracy_guided", "frechet_guided")}
    return result


def main() -> None:
    """Trains everything that the command line asks for and is not in recipes.jsonl yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seconds", type=float, help="of training, in place of --steps")
    parser.add_argument("--evaluations", type=int, default=4, help="while training")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    results = options.work / "recipes.jsonl"
    done = {(line["recipe"], line["seed"]) for line in read_lines(results)}
    wanted = [
        (recipe, seed)
        for recipe in options.recipes
        for seed in options.seeds
        if (recipe, seed) not in done
    ]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        pairs = {(RECIPES[recipe][0], seed) for recipe, seed in wanted}
        frozen = {pair: pool.submit(autoencoder, options.work, *pair) for pair in sorted(pairs)}
        flags = {pair: future.result() for pair, future in frozen.items()}
        jobs = [
            pool.submit(train, options.work, recipe, seed, flags[RECIPES[recipe][0], seed], options)
            for recipe, seed in wanted
        ]
        with results.open("a") as output:
            for job in concurrent.futures.as_completed(jobs):
                line = json.dumps(job.result())
                print(line, file=output, flush=True)
                print(line, flush=True)


if __name__ == "__main__":
    main()
