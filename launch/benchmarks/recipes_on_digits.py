r"""Today's recipe and RAEv2's on digits, ingredient by ingredient, over several seeds.

    python launch/benchmarks/recipes_on_digits.py WORKDIR --seeds 0 1 2 --jobs 15 [--steps 2000]

Each recipe trains for the same number of steps and is evaluated as it goes, without guidance, and
at the end with it. A run is a process of its own, so that many fill a machine; one JSON line each
goes to WORKDIR/recipes.jsonl.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

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


def run(log: Path, *arguments: str) -> None:
    """Runs a mode in a process of one thread, whose output goes to a file."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    }
    with log.open("a") as output:
        subprocess.run(
            [sys.executable, "-m", "rae_dit.main", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=True,
        )


def autoencoder(work: Path, edition: str, seed: int) -> list[str]:
    """Trains encoder and decoder, computes statistics; returns the flags that name them."""
    directory = work / f"edition{edition or 1}-seed{seed}"
    directory.mkdir(parents=True, exist_ok=True)
    log, seeded = directory / "log", f"--config.seed={seed}"
    run(
        log,
        f"--config=configs/encoder{edition}_digits.py",
        f"--workdir={directory}/encoder",
        seeded,
    )
    rae = [
        f"--config=configs/rae{edition}_digits.py",
        f"--workdir={directory}/rae",
        f"--config.encoder.checkpoint={directory}/encoder",
        seeded,
    ]
    run(log, *rae)
    run(log, *rae, "--mode=stats")
    return [
        f"--config.encoder.checkpoint={directory}/encoder",
        f"--config.encoder.statistics={directory}/rae/statistics.npz",
        f"--config.decoder.checkpoint={directory}/rae",
        seeded,
    ]


def train(work: Path, recipe: str, seed: int, frozen: list[str], steps: int, samples: int) -> dict:
    """Trains one DiT^DH and returns its scores by step, and at the end with guidance."""
    _, config, changes = RECIPES[recipe]
    directory = work / f"{recipe.replace(' ', '')}-seed{seed}"
    directory.mkdir(parents=True, exist_ok=True)
    base = [f"--config=configs/{config}.py", f"--workdir={directory}", *frozen, *changes]
    lengths = [f"--config.optim.max_steps={steps}", f"--config.optim.decay_end_step={steps}"]
    unguided = [
        f"--config.metrics.evaluate_every={steps // 4}",
        f"--config.checkpoint.save_every={steps // 4}",
        f"--config.metrics.evaluate_samples={samples}",
        "--config.sample.cfg_scale=1.0",
        "--config.sample.guidance=cfg",
    ]
    started = time.monotonic()
    run(directory / "log", *base, *lengths, *unguided)
    seconds = time.monotonic() - started
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    scores = [
        {name: line[name] for name in ("step", "eval/class_accuracy", "eval/frechet")}
        for line in lines
        if "eval/frechet" in line
    ]
    result = {"recipe": recipe, "seed": seed, "seconds": seconds, "by_step": scores}
    if recipe in ("rae", "rae + muon"):
        guidances = {"cfg": ["--config.sample.cfg_scale=2.0"]}
    else:
        scale = "--config.sample.cfg_scale"
        guidances = {
            "internal": [f"{scale}=1.78", "--config.sample.guidance=internal"],
            "cfg": [f"{scale}=2.0", "--config.sample.guidance=cfg"],
        }
    for name, flags in guidances.items():
        run(
            directory / "log",
            *base,
            *lengths,
            *flags,
            "--mode=evaluate",
            f"--config.evaluate.num_samples={samples}",
        )
        result[name] = json.loads((directory / "evaluation.json").read_text())
    return result


def main() -> None:
    """Trains everything that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    editions = sorted({RECIPES[recipe][0] for recipe in arguments.recipes})
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        pairs = [(edition, seed) for edition in editions for seed in arguments.seeds]
        frozen = {pair: pool.submit(autoencoder, arguments.work, *pair) for pair in pairs}
        waiting = {}
        for pair, future in frozen.items():
            flags = future.result()
            for recipe in arguments.recipes:
                if RECIPES[recipe][0] == pair[0]:
                    job = pool.submit(
                        train,
                        arguments.work,
                        recipe,
                        pair[1],
                        flags,
                        arguments.steps,
                        arguments.samples,
                    )
                    waiting[job] = recipe
        with (arguments.work / "recipes.jsonl").open("a") as output:
            for job in concurrent.futures.as_completed(waiting):
                output.write(json.dumps(job.result()) + "\n")
                output.flush()
                print(json.dumps(job.result()), flush=True)


if __name__ == "__main__":
    main()
