"""Peak figures of accelerators, from their vendors, and the share reached in practice.

A device here is what JAX calls one: a GPU, a TPU chip, half a TPU7x chip. Figures are decimal
(1 TB/s = 1e12 bytes/s), dense (no sparsity) and one way (a link of "900 GB/s bidirectional" sends
450). Sources, read 2026-11-23:

* NVIDIA H100, H200 and A100 data sheets; usable memory as `nvidia-smi` shows it.
* docs.cloud.google.com/tpu/docs, pages v4, v5e, v5p, v6e and tpu7x. A TPU multiplies bfloat16
  only: XLA makes a float32 product of 6 bfloat16 ones (Precision.HIGHEST) and a "tf32" one of 3
  (Precision.HIGH). Usable memory as the compiler of libtpu 0.0.42 has it.

**Reached in practice.** A product of long rows reaches the share `matmul_share` of the peak. One
that sums over few numbers (`inner`) reaches less on a GPU: every tile of the result is begun,
written out and handed over at a cost that does not depend on how long its sum is, as if the sum
were `startup` numbers longer:

    FLOP/s(inner) = peak matmul_share inner / (inner + startup)                        (1)

On the H200, cuBLAS runs 8192^3 in bfloat16 at 802 TFLOP/s, and the products of DiT^DH-XL, each
alone, at 640 to 817 (docs/performance.md, 2026-11-23). With the lowest for the shortest sum, 1152
numbers, (1) has startup 354 and peak matmul_share 837 TFLOP/s, 0.846 of the peak. That pair
was chosen among six with the trace of one training step in view. Attention is short sums: (1)
gives 0.19 ms for the forward pass of a layer of DiT^DH-XL, 128 images; a trace shows 0.18. The
H100 has the same cores and the A100 is assumed to behave alike. A TPU's compiler pipelines its
tiles, but fills whole tiles of `tile` numbers: a head of 72 costs as much as one of 128.

Copies reached 4.3 of 4.8 TB/s on the H200 and 3.0 of 3.35 on the H100; all-reduces over NVLink
329 to 361 of 450 GB/s on two to eight H100. What nobody measured here is assumed and says so:
`measured` is False.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Device:
    """One kind of device.

    Attributes:
        names: what `jax.Device.device_kind` calls it.
        memory: bytes that a program can use.
        flops: peak FLOP/s of matrix products by the config's `precision`. "fp8" has that of "bf16",
            in which a third of its products run, and which is the measure of both then.
        bandwidth: bytes/s between memory and cores.
        network: bytes/s one way to the other devices of a host (GPU) or slice (TPU), all links.
        matmul_share, bandwidth_share, network_share: of these three, what is reached.
        startup: see (1).
        tile: a product's inner and outer axes are filled up to multiples of it; 1 = they are not.
        measured: whether the shares were measured on this kind of device.
    """

    names: tuple[str, ...]
    memory: int
    flops: dict[str, float]
    bandwidth: float
    network: float
    matmul_share: float
    bandwidth_share: float
    network_share: float
    startup: int
    tile: int
    measured: bool

    @property
    def is_gpu(self) -> bool:
        """Whether the device is a GPU (else a TPU)."""
        return self.names[0].startswith("NVIDIA")

    def matmul_flops(self, inner: int, precision: str) -> float:
        """Computes the FLOP/s that a matrix product with inner dimension `inner` reaches: (1)."""
        return self.flops[precision] * self.matmul_share * inner / (inner + self.startup)


def find_device(device_kind: str) -> Device | None:
    """Looks up a `jax.Device.device_kind`; None if it is not in the table."""
    return next((device for device in DEVICES if device_kind in device.names), None)


def _gpu(
    name: str, *, memory: int, bf16: float, fp32: float, bandwidth: float, network: float
) -> Device:
    """Describes a GPU with tensor cores: TF32 products run at half the speed of bfloat16 ones."""
    return Device(
        names=(name,),
        memory=memory,
        flops={"fp8": bf16, "bf16": bf16, "tf32": bf16 / 2, "fp32": fp32},
        bandwidth=bandwidth,
        network=network,
        matmul_share=0.846,
        bandwidth_share=0.90,
        network_share=0.75,
        startup=354,
        tile=1,
        measured="H100" in name or "H200" in name,
    )


def _tpu(
    *names: str, memory: int, bf16: float, bandwidth: float, network: float, tile: int
) -> Device:
    """Describes a TPU; shares are assumed."""
    return Device(
        names=names,
        memory=memory,
        flops={"fp8": bf16, "bf16": bf16, "tf32": bf16 / 3, "fp32": bf16 / 6},
        bandwidth=bandwidth,
        network=network,
        matmul_share=0.90,
        bandwidth_share=0.90,
        network_share=0.80,
        startup=0,
        tile=tile,
        measured=False,
    )


MIB = 2**20
HOPPER = {"bf16": 989.4e12, "fp32": 66.9e12, "network": 450e9}
AMPERE = {"bf16": 312e12, "fp32": 19.5e12, "network": 300e9}

DEVICES = (
    _gpu("NVIDIA H200", memory=143771 * MIB, bandwidth=4.8e12, **HOPPER),
    _gpu("NVIDIA H100 80GB HBM3", memory=81559 * MIB, bandwidth=3.35e12, **HOPPER),
    _gpu("NVIDIA A100-SXM4-80GB", memory=81920 * MIB, bandwidth=2.039e12, **AMPERE),
    _gpu("NVIDIA A100-SXM4-40GB", memory=40960 * MIB, bandwidth=1.555e12, **AMPERE),
    _tpu("TPU v4", memory=int(30.75 * GIB), bf16=275e12, bandwidth=1.2e12, network=300e9, tile=128),
    _tpu(
        "TPU v5 lite",
        "TPU v5e",
        memory=int(15.75 * GIB),
        bf16=197e12,
        bandwidth=819e9,
        network=200e9,
        tile=128,
    ),
    _tpu(
        "TPU v5",
        "TPU v5p",
        memory=int(95.74 * GIB),
        bf16=459e12,
        bandwidth=2.765e12,
        network=600e9,
        tile=128,
    ),
    _tpu(
        "TPU v6 lite",
        "TPU v6e",
        memory=int(31.25 * GIB),
        bf16=918e12,
        bandwidth=1.638e12,
        network=400e9,
        tile=256,
    ),
    # Two devices a chip: half of each figure.
    _tpu(
        "TPU7x",
        "TPU v7x",
        memory=int(94.75 * GIB),
        bf16=1153.5e12,
        bandwidth=3.69e12,
        network=300e9,
        tile=256,
    ),
)


def unused_accelerator(
    platform: str, *, environment: Mapping[str, str] = os.environ, root: Path = Path("/")
) -> str | None:
    """Describes an accelerator of this machine that JAX does not use; None if there is none.

    Args:
        platform: what JAX uses.
        environment: variables that may ask for the CPU, or say what a cluster has given.
        root: of the file system.
    """
    asked = environment.get("JAX_PLATFORMS") or environment.get("CUDA_VISIBLE_DEVICES", "0") in (
        *("", "-1", "none"),
    )
    if platform != "cpu" or asked:
        return None
    given = environment.get("SLURM_GPUS_ON_NODE", "0") not in ("", "0")
    if given or (root / "dev/nvidia0").exists() or (root / "dev/nvidiactl").exists():
        return 'NVIDIA GPUs, which need pip install "jax[cuda13]" (docs/install.md)'
    if (root / "dev/accel0").exists():
        return 'TPUs, which need pip install "jax[tpu]" (docs/install.md)'
    return None
