r"""Weak scaling over the devices of one host, whatever their number, in one command and one table.

    python launch/benchmarks/bench_scaling.py --output scaling.jsonl [--seconds 1500]
    python launch/benchmarks/bench_scaling.py --output scaling.jsonl --devices 1 8 --parts train \
        --configs dit_dino --combine_mib 64 256 --xla_flags="--xla_gpu_enable_pipelined_all_reduce"
    python launch/benchmarks/bench_scaling.py --dry_run        # 8 devices of a CPU, small networks
    python launch/benchmarks/scaling_table.py scaling.jsonl [--plot docs/images/eight_devices.png]

The batch grows with the devices; the ratio is images/s per device beside one device of the same
machine, measured in the same sitting. Parts: "train" with data parallelism, FSDP over all devices
and a hybrid of two groups; "sample"; "evaluate", the FID of training's own samples; "checkpoint",
saved by all devices, continued by one, and by all again; "loader", as many workers as the host has
cores. Each measurement is a process of its own (measure.py): a sitting that was cut off goes on
where it stopped. `--profile DIR` adds a trace of each training step, and what its time went into.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.benchmarks import measure
from launch.benchmarks.measure import Measurement
from launch.benchmarks.scaling_table import read, rows

PARTS = ("train", "sample", "evaluate", "checkpoint", "loader")
# DiT^DH-XL and S; RAEv2 with Muon; MeanFlow, in few steps, without a teacher.
CONFIGS = ("dit_dino", "dit_dino_s", "dit2_dinov3", "few_finetune_dino")
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter")
DRY_DEVICES = 8


class Sizes(NamedTuple):
    """How large measurements are.

    Attributes:
        train: images a device.
        sample: images a device.
        evaluate: images a device.
        common: arguments of all.
        seconds: that one takes, roughly.
        train_only: arguments of timed steps.
    """

    train: int
    sample: int
    evaluate: int
    common: str
    seconds: int
    train_only: str


REAL = Sizes(128, 64, 256, "--config.precision=bf16", 120, "--windows=4")
DRY = Sizes(
    *(2, 2, 2, "--config.evaluate.batch_size=2 --config.sample.num_steps=3"),
    *(30, "--windows=1 --repeats=1"),
)


def main() -> None:
    """Measures what the file lacks, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("scaling.jsonl"))
    parser.add_argument("--devices", type=int, nargs="+", help="default 1, 2, 4, ... and all")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--configs", nargs="+", default=list(CONFIGS), help="the first is the main")
    parser.add_argument("--combine_mib", type=int, nargs="+", default=[], help="of collectives")
    parser.add_argument("--xla_flags", action="append", default=[], help="a set to try as well")
    parser.add_argument("--profile", default="", help="directory for traces of training steps")
    parser.add_argument("--directory", default=tempfile.gettempdir(), help="of checkpoints")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for all of it")
    parser.add_argument("--list", action="store_true", help="show what would be run")
    parser.add_argument("--dry_run", action="store_true", help=f"on {DRY_DEVICES} CPU devices")
    options = parser.parse_args()
    flags = ["", *map(combine, options.combine_mib), *options.xla_flags]
    count = DRY_DEVICES if options.dry_run else count_devices()
    devices = options.devices or [n for n in powers(count) if n < count] + [count]
    if options.dry_run:
        os.environ |= {"JAX_PLATFORMS": "cpu"}
        options.configs, devices = ["dit_dummy"], options.devices or [1, count]
    if 1 not in devices:
        parser.error("--devices: one device is what others are compared with; add 1")
    wanted = [
        each
        for part in options.parts
        for each in plan(
            part,
            sorted(devices),
            options.configs,
            flags,
            DRY if options.dry_run else REAL,
            profile=options.profile,
            directory=options.directory,
        )
    ]
    if options.dry_run:
        wanted = [each._replace(forced=True) for each in wanted]
    measure.run(wanted, options.output, options.seconds, only_list=options.list)
    if not options.list:
        print("\n".join(rows(read(options.output))))


def count_devices() -> int:
    """Counts this host's devices in a process of its own: it would hold their memory."""
    code = "import jax; print(jax.local_device_count())"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(found.stdout.split()[-1])


def powers(count: int) -> list[int]:
    """Returns the powers of two up to a number."""
    return [2**power for power in range(count.bit_length())]


def combine(mib: int) -> str:
    """Returns XLA's flags for collectives that are combined up to so many MiB."""
    return " ".join(
        f"--xla_gpu_{name}_combine_threshold_bytes={mib * 2**20}" for name in COLLECTIVES
    )


def layouts(devices: int) -> dict[str, int]:
    """Returns the layouts of the parameters over so many devices: name -> sharding.fsdp."""
    if devices == 1:
        return {"one": 1}
    hybrid = {f"hybrid 2 x {devices // 2}": devices // 2} if devices % 2 == 0 < devices - 2 else {}
    return {"data parallel": 1, "fsdp": devices} | hybrid


def plan(
    part: str,
    devices: list[int],
    configs: list[str],
    flags: list[str],
    sizes: Sizes,
    *,
    profile: str,
    directory: str,
) -> Iterator[Measurement]:
    """Yields the measurements of a part, those of one device first."""
    main_config, most = configs[0], max(devices)

    def one(name: str, command: str, count: int, xla: str = "") -> Measurement:
        where = f"launch/benchmarks/{command} {sizes.common}".strip()
        return Measurement(name, where, sizes.seconds, count, xla)

    if part == "train":
        for config in configs:
            for count in devices:
                for layout, fsdp in layouts(count).items():
                    for xla in flags if count > 1 else flags[:1]:
                        name = f"{config}, train, {count}, {layout}" + f", {xla}" * bool(xla)
                        place = name.replace(", ", "_").replace(" ", "").replace("/", "")[:120]
                        traced = f" --profile={profile}/{place}" if profile else ""
                        yield one(
                            name,
                            f"bench.py --config=configs/{config}.py --parts=train "
                            f"{sizes.train_only} --config.data.batch_size={sizes.train * count} "
                            f"--config.sharding.fsdp={fsdp}{traced}",
                            count,
                            xla,
                        )
    if part == "sample":
        for count in devices:
            yield one(
                f"{main_config}, sample, {count}, copied",
                f"bench.py --config=configs/{main_config}.py --parts=sample --windows=2 "
                f"--repeats=1 --config.sample.batch_size={sizes.sample * count}",
                count,
            )
    if part == "evaluate":
        for count in devices:
            yield one(
                f"{main_config}, evaluate, {count}, copied",
                f"bench_evaluation.py --config=configs/{main_config}.py "
                f"--config.sample.batch_size={sizes.sample * count} "
                f"--config.evaluate.num_samples={sizes.evaluate * count}",
                count,
            )
    if part == "checkpoint":
        for action, count in (("begin", most), ("continue", 1), ("end", most)):
            yield one(
                f"{main_config}, checkpoint, {count}, {action}",
                f"bench_checkpoint.py --config=configs/{main_config}.py --directory={directory} "
                f"--action={action} --config.sharding.fsdp={count} "
                f"--config.data.batch_size={sizes.train * count}",
                count,
            )
    if part == "loader":
        few = (
            "" if sizes is REAL else " --files 8 --size 8 --batch_size 8 --seconds 0.2 --repeats 1"
        )
        workers = (os.cpu_count() or 1) if sizes is REAL else 0
        yield Measurement(
            f"loader for {most} devices",
            f"launch/benchmarks/bench_loader.py --workers {workers} --ceiling_batch 0 "
            f"--loaders folder parquet tfds{few}",
            sizes.seconds,
        )


if __name__ == "__main__":
    main()
