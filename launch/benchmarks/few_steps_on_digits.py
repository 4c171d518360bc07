r"""Few-step generation of digits: stages, starts and weights of the loss, over several seeds.

    python launch/benchmarks/few_steps_on_digits.py WORKDIR --seeds 0 1 --jobs 12 --budget 460

Every run is a process of its own. After `--budget` seconds the processes that still run are ended
and what is there is compared; the same command continues. For each seed WORKDIR/seedN gets the
files of launch/compare_few_steps.py, and training.json with the losses and gradient norms.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

UNGUIDED = ["--config.few_step.cfg_scale=1.0", "--config.ddt.class_dropout=0.1"]
EXACTLY_PUBLISHED = [*UNGUIDED, "--config.few_step.adaptive_constant=0"]
# Student -> (config, where it starts, changes)
STUDENTS = {
    "mid-training (CMT)": ("trajectory", "teacher", []),
    "CMT + distillation": ("distil", "CMT", []),
    "CMT + distillation, p = 0.5": ("distil", "CMT", ["--config.few_step.adaptive_power=0.5"]),
    "CMT + distillation, p = 0": ("distil", "CMT", ["--config.few_step.adaptive_power=0"]),
    "CMT + fine-tuning": ("finetune", "CMT", ["--config.optim.learning_rate=1e-3"]),
    "distillation alone": ("distil", "teacher", []),
    "distillation, random embedding": ("distil", "reference", []),
    "unguided, p = 0, random embedding": (
        *("distil", "reference"),
        [*UNGUIDED, "--config.few_step.adaptive_power=0"],
    ),
    "unguided, p = 0": ("distil", "teacher", [*UNGUIDED, "--config.few_step.adaptive_power=0"]),
    "unguided, p = 1, random embedding": ("distil", "reference", EXACTLY_PUBLISHED),
}


@dataclasses.dataclass(frozen=True)
class Processes:
    """Where processes run, and until when.

    Attributes:
        deadline: of `time.monotonic()`.
        environment: of every process.
    """

    deadline: float
    environment: dict[str, str]

    def run(self, log: Path, *command: str) -> bool:
        """Runs a command whose output goes to a file; returns whether it ended well in time."""
        left = self.deadline - time.monotonic()
        if left < 1:
            return False
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            try:
                ended = subprocess.run(
                    [sys.executable, *command],
                    cwd=ROOT,
                    env=self.environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=left,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                print(f"out of time: {log}", flush=True)
                return False
        if ended.returncode:
            print(f"failed ({ended.returncode}): {log}", flush=True)
        return ended.returncode == 0


def main() -> None:
    """Trains and compares everything that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    parser.add_argument("--teacher_steps", type=int, default=4000)
    parser.add_argument("--trajectory_steps", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=2000, help="of distillation and fine-tuning")
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--budget", type=float, default=460, help="seconds")
    parser.add_argument("--compare_seconds", type=float, default=100, help="of the budget")
    parser.add_argument("--platform", default="", help="cpu or cuda; JAX's choice by default")
    arguments = parser.parse_args()
    environment = os.environ | {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "OMP_NUM_THREADS": "1",
        **({"JAX_PLATFORMS": arguments.platform} if arguments.platform else {}),
    }
    end = time.monotonic() + arguments.budget
    processes = Processes(end - arguments.compare_seconds, environment)
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        work = {seed: arguments.work.resolve() / f"seed{seed}" for seed in arguments.seeds}
        teachers = {
            seed: pool.submit(teacher, processes, directory, seed, arguments.teacher_steps)
            for seed, directory in work.items()
        }
        flags = {seed: future.result() for seed, future in teachers.items()}
        first = [name for name in arguments.students if STUDENTS[name][1] != "CMT"]
        for names in (first, [name for name in arguments.students if name not in first]):
            started = [
                pool.submit(student, processes, work[seed], name, found, arguments)
                for name in names
                for seed, found in flags.items()
                if found
            ]
            concurrent.futures.wait(started)
        comparing = Processes(end, environment)
        for done in [
            pool.submit(compare, comparing, directory, arguments.students)
            for directory in work.values()
        ]:
            print(done.result(), flush=True)


def teacher(processes: Processes, work: Path, seed: int, steps: int) -> list[str]:
    """Trains autoencoder and teacher; returns the flags that name them, none if one failed."""
    log, main_module = work / "teacher.log", ("-m", "rae_dit.main")
    shared = [f"--config.seed={seed}", *quiet()]
    frozen = [f"--config.encoder.checkpoint={work}/encoder"]
    rae = ["--config=configs/rae_digits.py", f"--workdir={work}/rae", *frozen, *shared]
    commands = [
        ["--config=configs/encoder_digits.py", f"--workdir={work}/encoder", *shared],
        rae,
        [*rae, "--mode=stats"],
    ]
    frozen += [
        f"--config.encoder.statistics={work}/rae/statistics.npz",
        f"--config.decoder.checkpoint={work}/rae",
    ]
    commands.append(
        [
            "--config=configs/dit_digits.py",
            f"--workdir={work}/dit",
            *(*frozen, *shared, *lengths(steps)),
        ]
    )
    for command in commands:
        if not processes.run(log, *main_module, *command):
            return []
    if not processes.run(
        log, __file__.replace("few_steps_on_digits", "reference_start"), str(work)
    ):
        return []
    return [*frozen, *shared, f"--config.few_step.teacher={work}/dit"]


def student(
    processes: Processes, work: Path, name: str, flags: list[str], arguments: argparse.Namespace
) -> bool:
    """Trains a student; returns whether it was trained to its end."""
    config, start, changes = STUDENTS[name]
    steps = arguments.trajectory_steps if config == "trajectory" else arguments.steps
    starts = {
        "teacher": [],
        "CMT": [f"--config.ddt.checkpoint={directory_of(work, 'mid-training (CMT)')}"],
        "reference": [f"--config.ddt.pretrained={work}/reference_start.safetensors"],
    }
    directory = directory_of(work, name)
    return processes.run(
        directory.with_suffix(".log"),
        *("-m", "rae_dit.main", f"--config=configs/few_{config}_digits.py"),
        *(f"--workdir={directory}", *flags, *starts[start], *lengths(steps), *changes),
    )


def compare(processes: Processes, work: Path, names: list[str]) -> str:
    """Compares the students that have a checkpoint; returns the tables."""
    there = [name for name in names if any(directory_of(work, name).glob("checkpoints/[0-9]*"))]
    students = [f"{name}={directory_of(work, name)}" for name in there]
    command = ["launch/compare_few_steps.py", f"--teacher={work}/dit", f"--output={work}"]
    processes.run(work / "compare.log", *command, *students)
    training = {name: training_of(directory_of(work, name)) for name in there}
    (work / "training.json").write_text(json.dumps(training, indent=1))
    table = work / "few_steps.md"
    found = table.read_text() if table.exists() else "not compared"
    return f"{work.name}\n{found}\n{json.dumps(training, indent=1)}"


def training_of(directory: Path) -> dict[str, float]:
    """Returns gradient norms, errors and distances to the teacher's endpoint of a run."""
    path = directory / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    norms = [line["train/gradient_norm"] for line in lines if "train/gradient_norm" in line]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    if not norms:
        return {}
    ends = [line["endpoint/1_step"] for line in lines if "endpoint/1_step" in line]
    return {
        "steps": lines[-1]["step"],
        "gradient_norm_median": statistics.median(norms),
        "gradient_norm_largest": max(norms),
        "error_first": losses[0],
        "error_largest": max(losses),
        "error_last": losses[-1],
        "endpoint_best": min(ends, default=float("nan")),
        "endpoint_last": ends[-1] if ends else float("nan"),
    }


def directory_of(work: Path, name: str) -> Path:
    """Returns the workdir of a student."""
    return work / "".join(c if c.isalnum() else "_" for c in name)


def lengths(steps: int) -> list[str]:
    """Returns the flags of a run's length."""
    return [f"--config.optim.max_steps={steps}", f"--config.optim.decay_end_step={steps}"]


def quiet() -> list[str]:
    """Returns flags that leave out what costs time here and is not looked at."""
    return [
        "--config.metrics.telemetry=False",
        "--config.metrics.validate_every=500",
        "--config.checkpoint.save_every=500",
    ]


if __name__ == "__main__":
    main()
