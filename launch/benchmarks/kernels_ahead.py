r"""Kernels of a training step, compiled for an H200 on a machine without one.

    JAX_PLATFORMS=cpu python launch/benchmarks/kernels_ahead.py --config=configs/dit_dino.py \
        --config.precision=bf16 --config.data.batch_size=128 --config.ddt.depth="(3,1)" \
        --config.encoder.depth=1

Needs jax[cuda13] and a minute a block, no GPU. Nothing is timed: XLA takes its first choice of a
product, and what is printed is how many kernels of a kind there are and the bytes that they read
and write, as a plan counts them (planning/traffic.py). Two commits that should be equally fast have
equal lines. So a regression of 16 ms of 300 was bisected: 53 transposes in place of 6 where a
DiT^DH had begun to train its positions (docs/performance.md, experiment 23).
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax
from absl import app, flags
from jax.experimental import topologies
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rae_dit import compiler
from rae_dit.config import from_config_dict
from rae_dit.planning.compiled import abstract_step, without_files
from rae_dit.planning.hlo import parse
from rae_dit.planning.traffic import has_product, is_kernel, kernel_bytes
from rae_dit.training.sharding import make_mesh, mesh_context

CONFIG = config_flags.DEFINE_config_file("config", help_string="Config file.")
MOST = flags.DEFINE_integer("most", 25, "Rows of kernels.", lower_bound=1)
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000
  l2_cache_size: 62914560
  clock_rate_ghz: 1.98
  device_memory_size: 150754820096
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 28 patch: 1 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H200"
"""


def main(_: list[str]) -> None:
    """Prints the totals, and a row for each kind of kernel."""
    found = topologies.get_topology_desc("h200", "cuda", topology="1x1x1", target_config=H200)
    mesh = make_mesh(1, list(found.devices))
    step = abstract_step(without_files(from_config_dict(CONFIG.value)), mesh)
    with jax.default_matmul_precision(step.matmul_precision), mesh_context(mesh):
        lowered = step.function.lower(step.state, step.frozen, step.batch)
    options = compiler.OPTIONS["gpu"] | {"xla_gpu_autotune_level": 0}  # no device to try it on
    kinds = [*kernels(lowered.compile(compiler_options=options).as_text() or "")]

    moved: Counter[str] = Counter()
    for kind, size, _ in kinds:
        moved[kind] += size
    others = [(kind, size) for kind, size, is_product in kinds if not is_product]
    transposes = sum("transpose" in kind for kind, _ in others)
    print(
        f"{len(others)} kernels beside products, {sum(size for _, size in others) / 1e9:.2f} GB, "
        f"{transposes} transposes"
    )
    counts = Counter(kind for kind, _, _ in kinds)
    for kind, size in moved.most_common(MOST.value):
        print(f"{size / 1e9:8.2f} GB {counts[kind]:5d}  {kind}")


def kernels(text: str) -> Iterator[tuple[str, int, bool]]:
    """Yields the kind of each kernel of a program, its bytes, and whether it is a product."""
    program = parse(text)
    lines = program.by_name()
    for line in program.computations[program.entry]:
        if is_kernel(line.opcode):
            kind = re.sub(r"[.\d]+$", "", line.name)
            yield kind, kernel_bytes(program, lines, line), has_product(program, line)


if __name__ == "__main__":
    app.run(main)
