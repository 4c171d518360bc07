r"""Roofline: the time of a step from its products, memory traffic and collectives.

Three times bound a step from below if everything overlapped:

    compute = sum over products of FLOPs / FLOP/s(inner)          (hardware.py, 1)       (1)
    memory  = all bytes / bandwidth                               (planning/traffic.py)  (2)
    network = bytes sent / network bandwidth                                             (3)

The largest *binds*. But kernels of one device run one after the other: while a norm reads and
writes its tensors, the matrix units wait. So the prediction adds what cannot overlap,

    kernels = max(compute, product_bytes / bandwidth) + other_bytes / bandwidth          (4)
    step    = max(kernels, network)                                                      (5)

where product_bytes belong to kernels that multiply (loads overlap with products there) and
other_bytes to all others; and collectives run beside kernels, as with XLA's latency-hiding
scheduler. Bandwidths and FLOP/s are those reached in practice (hardware.py), measured on products
and copies alone, except that two constants of the H200 were chosen among six pairs with
the trace of one training step in view (hardware.py).

FLOPs are those of the task's `Work`, each trained product once forward and twice backward: for
[m, k] x [k, n] the gradients are [m, n] x [n, k] and [k, m] x [m, n]. On top of that come the
products that remat computes again (`hardware` FLOPs, not `model` FLOPs), and a TPU's tiles that
are not full. Muon's products count once a step, of each device its share. Not in it: the host,
launch gaps between kernels, stragglers.
"""

import math
from typing import NamedTuple

from rae_dit.config import Config
from rae_dit.flops import Matmul, Work
from rae_dit.hardware import Device
from rae_dit.models.attention import choose_attention
from rae_dit.planning.traffic import Traffic


class Roofline(NamedTuple):
    """Seconds of one step on one device, by the equations above."""

    compute: float
    memory: float
    network: float
    step: float

    @property
    def binds(self) -> str:
        """The largest of the three."""
        terms = {"compute": self.compute, "memory": self.memory, "network": self.network}
        return max(terms, key=lambda name: terms[name])


def predict(
    config: Config, work: Work, device: Device, traffic: Traffic, num_devices: int
) -> Roofline:
    """Predicts the times of one step; devices share the batch equally."""
    bandwidth = device.bandwidth * device.bandwidth_share
    images = config.data.batch_size / num_devices
    compute = compute_seconds(config, work, device, images)
    compute += optimizer_seconds(config, work, device, num_devices)
    network = sum(traffic.collectives.values()) / (device.network * device.network_share)
    kernels = max(compute, traffic.product_bytes / bandwidth) + traffic.other_bytes / bandwidth
    return Roofline(
        compute=compute,
        memory=(traffic.product_bytes + traffic.other_bytes) / bandwidth,
        network=network,
        step=max(kernels, network),
    )


def compute_seconds(config: Config, work: Work, device: Device, images: float) -> float:
    """Computes equation (1) for a number of images on one device."""
    part = images / config.optim.accumulate_steps  # one product's rows
    forward = [shape for product in work.frozen for shape in batched(product, images)]
    once = [shape for product in work.trained for shape in batched(product, part)]
    backward = [
        turned
        for rows, inner, columns, times in once
        for turned in ((rows, columns, inner, times), (inner, rows, columns, times))
    ]
    again = [
        shape
        for product in recomputed(config, work.trained, device)
        for shape in batched(product, part)
    ]
    trained = sum(seconds(*shape, config.precision, device) for shape in once + backward + again)
    frozen = sum(seconds(*shape, config.precision, device) for shape in forward)
    return frozen + config.optim.accumulate_steps * trained


def optimizer_seconds(config: Config, work: Work, device: Device, num_devices: int) -> float:
    """Computes equation (1) for Muon, whose matrices are split over the devices and padded."""
    return sum(
        seconds(
            product.rows,
            product.inner,
            product.columns,
            math.ceil(product.times / num_devices),
            config.precision,
            device,
        )
        for product in work.optimizer
    )


Shape = tuple[float, float, float, float]


def batched(product: Matmul, images: float) -> list[Shape]:
    """Merges a batch into rows where the right side is a parameter."""
    if product.weighted:
        return [(product.rows * images, product.inner, product.columns, product.times)]
    return [(product.rows, product.inner, product.columns, product.times * images)]


def recomputed(config: Config, trained: list[Matmul], device: Device) -> list[Matmul]:
    """Lists products that the backward pass computes again (`compute.remat`).

    "dots" keeps the results of products with parameters; attention's are computed again, and
    fused attention, which keeps no logits, computes those again in any case.
    """
    attention = [product for product in trained if not product.weighted]
    fused = [
        product
        for product in attention
        if product.rows == product.columns and is_fused(config, device, product.rows, product.inner)
    ]
    match config.compute.remat:
        case "full":
            return trained + fused
        case "dots":
            return attention + fused
    return fused


def is_fused(config: Config, device: Device, tokens: int, head_width: int) -> bool:
    """Tells whether attention over so many tokens is a kernel that keeps no logits."""
    chosen = config.compute.attention
    if chosen == "auto":
        platform = "gpu" if device.is_gpu else "tpu"
        half = config.is_half
        chosen = choose_attention(
            platform, 1, half=half, batch=1, tokens=tokens, head_width=head_width
        )
    return chosen != "xla"


def seconds(
    rows: float, inner: float, columns: float, times: float, precision: str, device: Device
) -> float:
    """Predicts the time of `times` products; inner and columns fill whole tiles."""
    inner, columns = (math.ceil(size / device.tile) * device.tile for size in (inner, columns))
    return 2 * rows * inner * columns * times / device.matmul_flops(inner, precision)
