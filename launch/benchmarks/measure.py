r"""Runs the measurements of docs/performance.md one after another into one file.

    python launch/benchmarks/measure.py --list
    python launch/benchmarks/measure.py --output measured.jsonl --seconds 500 one_gpu
    python launch/benchmarks/measure.py --output measured.jsonl two_gpus

Each measurement is a process of its own, and one runs at a time: compiling beside another slows
both several times. Its JSON lines are appended to the file with its name before the next begins.
Those that the file already holds are passed over, so that a sitting that was cut off, or a machine
that is lent by the minute, goes on where it stopped; with `--seconds`, none is begun that would not
end in time, going by what it takes on an H100 with 16 cores.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
XL = "launch/benchmarks/bench.py --config=configs/dit_dino.py --config.precision=bf16"
TRAIN = f"{XL} --parts=train --windows=4 --config.data.batch_size"
SMALL = TRAIN.replace("dit_dino.py", "dit_dino_s.py")
LARGE_IMAGES = TRAIN.replace("dit_dino.py", "dit_dino_512.py")
SAMPLE = f"{XL} --parts=sample --windows=3 --repeats=1 --config.sample.batch_size=64"
TORCH = "launch/benchmarks/bench_torch.py --parts"
STAGE1 = (
    "launch/benchmarks/bench_stage1.py --config=configs/rae_dino.py --config.data.batch_size=32 "
    "--windows=3"
)
SAMPLING = (
    "launch/benchmarks/bench_sampling.py --config=configs/dit_dino.py --config.precision=bf16 "
    "--config.sample.batch_size=64"
)
SHORT = "--config.sample.num_steps=11"
LARGE_CASES = "--cases=none:16,none:32,dots:32,dots:64,full:32,full:64,full:128"
MEMORY = "launch/benchmarks/bench_memory.py --config.precision=bf16"
START = (
    "launch/benchmarks/bench_start.py --config=configs/dit_dino.py --config.data.source=synthetic "
    "--config.encoder.pretrained= --config.decoder.pretrained= --config.data.batch_size=64 "
    "--config.precision=bf16"
)
COMPILE = (
    "launch/benchmarks/bench_compile.py --config=configs/dit_dino.py --config.precision=bf16 "
    "--config.data.batch_size=64 --config.ddt.depth=(7,2)"
)


# Devices of a CPU that many use are late for each other; what is only tried compiles fast.
FORCED = (
    "--xla_cpu_collective_call_terminate_timeout_seconds=600 --xla_backend_optimization_level=0 "
    "--xla_force_host_platform_device_count="
)


class Measurement(NamedTuple):
    """One command.

    Attributes:
        name: what the results are filed under.
        command: arguments of Python.
        seconds: that it takes, roughly.
        gpus: how many devices it is shown.
        flags: of XLA, beside those of the environment.
        forced: devices of a CPU, which XLA makes.
    """

    name: str
    command: str
    seconds: int
    gpus: int = 1
    flags: str = ""
    forced: bool = False


SETS = {
    "one_gpu": [
        Measurement("ceiling", f"{XL} --parts=ceiling", 25),
        Measurement("train", f"{TRAIN}=128", 60),
        Measurement("torch train", f"{TORCH} train", 125),
        Measurement("sample", SAMPLE, 110),
        Measurement("torch sample", f"{TORCH} sample", 150),
        Measurement("stage 1 bf16", f"{STAGE1} --config.precision=bf16", 225),
        Measurement("stage 1 fp32", f"{STAGE1} --config.precision=fp32", 400),
        Measurement("train again", f"{TRAIN}=128", 60),
        Measurement("torch as shipped", f"{TORCH} train --as_shipped", 125),
    ],
    "growth": [
        *(Measurement(f"batch {size}", f"{TRAIN}={size}", 55) for size in (16, 32, 64)),
        *(
            Measurement(f"depth {depth}", f"{TRAIN}=64 --config.ddt.depth=({depth},2)", 50)
            for depth in (7, 14)
        ),
        Measurement("512 px", f"{LARGE_IMAGES}=32", 80),
        Measurement("start", START, 100),
        Measurement(
            "checkpoint",
            "launch/benchmarks/bench_checkpoint.py --config=configs/dit_dino.py --directory=/tmp",
            90,
        ),
    ],
    "sampling": [
        Measurement("sampling", f"{SAMPLING} {SHORT} --measure=interval,batch,loop", 110),
    ],
    "memory": [
        Measurement("memory 256", f"{MEMORY} --config=configs/dit_dino.py", 130),
        Measurement("memory 512", f"{MEMORY} --config=configs/dit_dino_512.py {LARGE_CASES}", 140),
    ],
    "latents": [Measurement("latents", "launch/benchmarks/bench_latents.py", 170)],
    "compiling": [Measurement("compiling", COMPILE, 130)],
    "two_gpus": [
        Measurement("one of two", f"{TRAIN}=128", 85),
        Measurement("data parallel", f"{TRAIN}=256", 95, gpus=2),
        Measurement("fsdp", f"{TRAIN}=256 --config.sharding.fsdp=2", 100, gpus=2),
        Measurement("small, one of two", f"{SMALL}=128", 60),
        Measurement("small, data parallel", f"{SMALL}=256", 80, gpus=2),
        Measurement("small, fsdp", f"{SMALL}=256 --config.sharding.fsdp=2", 80, gpus=2),
    ],
}


def main() -> None:
    """Runs the measurements of a set that the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sets", nargs="*", help=f"of {', '.join(SETS)}; all if none is named")
    parser.add_argument("--output", type=Path, default=Path("measured.jsonl"))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for all of them")
    parser.add_argument("--list", action="store_true", help="show them and how long they take")
    options = parser.parse_args()
    if unknown := set(options.sets) - set(SETS):
        parser.error(f"no such set: {', '.join(sorted(unknown))}; there are {', '.join(SETS)}")
    wanted = [each for name in options.sets or SETS for each in SETS[name]]
    run(wanted, options.output, options.seconds, only_list=options.list)


def run(wanted: Sequence[Measurement], output: Path, seconds: float, *, only_list: bool) -> None:
    """Runs the measurements that a file lacks, as far as the seconds go; or shows them all."""
    if only_list:
        for each in wanted:
            print(f"{each.seconds:4d} s  {each.gpus} GPU  {each.name}: {each.command}")
        return
    end = time.monotonic() + seconds
    done = finished(output)
    for each in wanted:
        left = end - time.monotonic()
        if each.name in done:
            print(f"{each.name}: is in {output}", flush=True)
        elif each.seconds > left:
            print(f"{each.name}: left for later, takes about {each.seconds} s", flush=True)
        else:
            measure(each, output, left)


def finished(path: Path) -> set[str]:
    """Returns the names of the measurements that a file holds completely."""
    if not path.exists():
        return set()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["measurement"] for line in lines if line.get("status") == 0}


def measure(each: Measurement, output: Path, seconds: float) -> None:
    """Runs one; appends its lines, and one with its exit status and duration."""
    visible = ",".join(str(number) for number in range(each.gpus))
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": visible, "PYTHONUNBUFFERED": "1"}
    forced = f"{FORCED}{each.gpus}" if each.forced else ""
    environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {each.flags} {forced}".strip()
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    begun = time.monotonic()
    limit = ["timeout", "--kill-after=5", str(int(min(seconds, 10**6)))]  # a run saves on SIGTERM
    command = [*limit, sys.executable, *shlex.split(each.command)]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    took = round(time.monotonic() - begun, 1)
    lines.append({"status": result.returncode, "seconds": took})
    with output.open("a") as file:
        for line in lines:
            text = json.dumps({"measurement": each.name} | line)
            file.write(text + "\n")
            print(text, flush=True)
    if result.returncode:
        print(result.stderr[-2000:], flush=True)


if __name__ == "__main__":
    main()
