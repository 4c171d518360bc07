r"""GPU time of a training step by kind of kernel, from a profiler trace.

    python launch/benchmarks/bench.py --config=configs/dit_dino.py --parts=train --profile=DIR ...
    python launch/benchmarks/trace_account.py DIR --steps 3

Kinds are told by kernel names: cuBLAS and CUTLASS products, cuDNN attention, and XLA's own fusions
by what XLA calls them. Prints milliseconds a step, kernels a step, and the share of all.
"""

import argparse
import re
from collections import Counter
from pathlib import Path

from jax.profiler import ProfileData

KINDS = (
    ("attention", r"cudnn|sdpa|fmha"),
    ("matrix products", r"nvjet|gemm|cutlass|cublas|splitK"),
    ("collectives", r"nccl"),
    ("copies", r"memcpy|Memset|MemcpyD2D"),
)


def main() -> None:
    """Prints the table of one trace."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("trace", type=Path, help="directory of the profile, or an .xplane.pb file")
    parser.add_argument("--steps", type=int, default=3, help="that the trace holds")
    parser.add_argument("--most", type=int, default=25, help="rows of fusions")
    options = parser.parse_args()
    files = [options.trace] if options.trace.is_file() else options.trace.rglob("*.xplane.pb")
    for kind, (milliseconds, count, share) in account(next(iter(files)), options.steps).items():
        if options.most > 0:
            print(f"{milliseconds:9.3f} ms {count:7.1f} kernels {share:6.1%}  {kind}")
        options.most -= 1


def account(path: Path, steps: int) -> dict[str, tuple[float, float, float]]:
    """Returns kind -> (ms a step, kernels a step, share of busy time), largest first."""
    busy: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    for plane in ProfileData.from_file(str(path)).planes:
        if "GPU" not in plane.name:
            continue
        for line in plane.lines:
            if "Stream" not in line.name:
                continue
            for event in line.events:
                kind = kind_of(event.name)
                busy[kind] += event.duration_ns
                kernels[kind] += 1
    total = sum(busy.values())
    return {
        kind: (time / steps / 1e6, kernels[kind] / steps, time / total)
        for kind, time in busy.most_common()
    }


def kind_of(kernel: str) -> str:
    """Returns the kind of a kernel; for a fusion, its name without the number."""
    for kind, pattern in KINDS:
        if re.search(pattern, kernel):
            return kind
    return re.sub(r"_\d+$", "", kernel)[:60]


if __name__ == "__main__":
    main()
