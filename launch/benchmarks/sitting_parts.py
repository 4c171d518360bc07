"""The benchmarks of a sitting, part by part, and small ones in their place for a trial."""

from pathlib import Path
from typing import NamedTuple

HERE = "launch/benchmarks"
XL = "--config=configs/dit_dino.py --config.precision=bf16"
XL_512 = "--config=configs/dit_dino_512.py --config.precision=bf16"
SMALL = "--cases=none:64,none:128,dots:128,full:128,full:256"
LARGE = "--cases=none:32,dots:32,full:32,full:64"
STAGE1 = "--config=configs/rae_dino.py"
START = "--config.data.source=synthetic --config.encoder.pretrained= --config.decoder.pretrained="
BATCHES = "--config.data.batch_size=128 --config.sample.batch_size=64"
WINDOWS = "--windows=3 --window_seconds=2.5"
DUMMY = "--config=configs/dit_dummy.py"
DUMMY_RAE = "--config=configs/rae_digits.py"


class Job(NamedTuple):
    """A benchmark.

    Attributes:
        name: what its lines are filed under.
        command: arguments of Python.
        after: the job that has to be compiled before this one starts; '' for none.
        takes_turns: whether it knows `--turn`.
    """

    name: str
    command: str
    after: str = ""
    takes_turns: bool = True


def parts(cache: Path, *, fp8: bool) -> dict[str, list[Job]]:
    """Returns the jobs of each part; those of one part compile at the same time."""
    ours = f"{HERE}/bench.py {XL} {BATCHES} {WINDOWS} --nodecoded"
    stage1 = f"{HERE}/bench_stage1.py {STAGE1} --config.data.batch_size=32 --at_once"
    half = Job("jax fp8", f"{ours} --parts=ceiling,train --config.precision=fp8", after="jax")
    # XLA tries products while it compiles: two of ours at once could choose others than alone
    return {
        "start": [
            Job(
                "start",
                f"{HERE}/bench_start.py --cache={cache} {XL} {START} --config.data.batch_size=128",
                takes_turns=False,
            )
        ],
        "pair": [
            Job("jax", f"{ours} --parts=ceiling,train,sample"),
            *([half] if fp8 else []),
            Job("torch", f"{HERE}/bench_torch.py {WINDOWS}"),
        ],
        "stage1": [
            Job("stage1 bf16", f"{stage1} --config.precision=bf16"),
            Job("stage1 tf32", f"{stage1} --config.precision=tf32 --windows=2 --repeats=3"),
        ],
        "tables": [
            Job("memory 256", f"{HERE}/bench_memory.py {XL} {SMALL}"),
            Job("memory 512", f"{HERE}/bench_memory.py {XL_512} {LARGE}"),
        ],
        "sampling": [
            Job(
                "sampling",
                f"{HERE}/bench_sampling.py {XL} {BATCHES} --config.sample.num_steps=11",
                takes_turns=False,
            )
        ],
        "latents": [Job("latents", f"{HERE}/bench_latents.py", takes_turns=False)],
        "options": [
            Job(
                "options",
                f"{HERE}/bench_compile.py {XL} --config.data.batch_size=64 "
                "--config.ddt.depth=(7,2) --steps=6 "
                '--settings="ours,kernels on all cores,and no autotuning"',
                takes_turns=False,
            )
        ],
        "loader": [
            Job(
                "loader",
                f"{HERE}/bench_loader.py --workers 16 --loaders folder parquet torch --files 128 "
                "--names 64 --batch_size 128 --seconds 10 --repeats 1 --ceiling_batch 0",
                takes_turns=False,
            )
        ],
    }


def tiny(job: Job) -> Job:
    """Returns the job with networks and data that any device can take; bench_torch needs CUDA."""
    command = job.command.replace(XL, DUMMY).replace(XL_512, DUMMY).replace(STAGE1, DUMMY_RAE)
    command = (
        command.replace(SMALL, "")
        .replace(LARGE, "")
        .replace("data.batch_size=32", "data.batch_size=4")
        .replace("ceiling,", "")
        .replace("(7,2)", "(2,1)")
        .replace(BATCHES, "--config.sample.batch_size=4")
    )
    more = {
        "memory": "--cases=none:8,full:16 --seconds=0.1",
        "sampling": "--sizes=4,8 --config.sample.num_steps=3",
        "loader": "--workers 1 --files 8 --names 8 --batch_size 8 --seconds 1",
        "latents": "--help",
    }
    return job._replace(command=f"{command} {more.get(job.name.split()[0], '')}")
