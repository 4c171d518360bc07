r"""The measurements of launch/benchmarks/bench.py in PyTorch, after the official code.

    python launch/benchmarks/bench_torch.py [--parts ceiling train sample] \
        [--as_shipped] [--as_written]

DiT^DH-XL (tests/support/torch_ddt.py, the oracle of our tests: the reference's tensors and, under
autocast, its dtypes: float32 residual stream, norms and rotations, bfloat16 products), DINOv2-B
with registers from `transformers`, autocast to bfloat16, torch.compile; Euler with 50 points.
Weights are random and images are noise on the device, as in bench.py, whose way of timing this file
shares.

The ceiling is measured cold and after five seconds of products; named first, as it is by default,
it warms the device for the parts after it. `--turn PATH` compiles all parts, lets go of memory that
is only kept for later, and waits for its turn (timing.wait_for_turn).

By default each part takes the fastest form torch has: a compiled bfloat16 encoder, fused AdamW, a
multi-tensor EMA; so the peer is not slower than its users could make it. `--as_written` has AdamW
and the EMA as the official code writes them, and `--as_shipped` its encoder besides: float32 with
TF32 products, not compiled.

Source: bytetriper/RAE `src/train.py`, `src/stage2/models/DDT.py`, `src/stage1/encoders/dinov2.py`;
SEMANTICS 4.2 to 4.8. One JSON line per measurement.
"""

import argparse
import functools
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch  # noqa: TID251 - the peer
import torch.nn.functional as F  # noqa: TID251

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from launch.benchmarks.timing import (  # noqa: E402
    WARM_SECONDS,
    Timed,
    first_call,
    heat,
    median_seconds,
    rates,
    wait_for_turn,
)
from tests.support.torch_ddt import TorchDDT  # noqa: E402

XL = {"widths": (1152, 2048), "depths": (28, 2), "heads": (16, 16)}
CHANNELS, GRID, PIXELS, ENCODER_PIXELS, CLASSES = 768, 16, 256, 224, 1000
SHIFT = (GRID * GRID * CHANNELS / 4096) ** 0.5
NULL, DROPOUT, DECAY = CLASSES, 0.1, 0.9995
TFLOP_STEP, TFLOP_EVALUATION = 1.017, 0.3236  # rae_dit/flops.py, an image
CEILING_SIZE = 8192


def wait(_: object) -> None:
    """Blocks until the GPU has done what was asked."""
    torch.cuda.synchronize()


def make_ddt() -> TorchDDT:
    """Makes a DiT^DH-XL with random weights on the GPU."""
    switches = {"qk": False, "swiglu": True, "rope": True, "rms": True, "pos": True}
    model = TorchDDT(grid=GRID, channels=CHANNELS, classes=CLASSES, ratio=4, **XL, **switches)
    model.t_embedder.W.requires_grad_(False)
    return model.cuda()


def make_encode(fast: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """Makes images [B,3,256,256] in [0, 1] -> latents [B,768,16,16] (DINOv2-B, registers)."""
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(image_size=518, patch_size=14)
    encoder = Dinov2WithRegistersModel(config).cuda().eval()
    mean = torch.tensor((0.485, 0.456, 0.406), device="cuda")[:, None, None]
    std = torch.tensor((0.229, 0.224, 0.225), device="cuda")[:, None, None]

    def encode(images: torch.Tensor) -> torch.Tensor:
        small = F.interpolate(images, (ENCODER_PIXELS, ENCODER_PIXELS), mode="bicubic")
        tokens = encoder((small - mean) / std).last_hidden_state[:, 5:]
        return tokens.transpose(1, 2).reshape(-1, CHANNELS, GRID, GRID)

    function = torch.compile(encode, dynamic=False) if fast else encode

    @torch.no_grad()
    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=fast):
            return function(images).float()

    return run


def measure_train(options: argparse.Namespace) -> Iterator[Timed]:
    """Times encoding, flow-matching loss, backward, clip, AdamW and EMA."""
    model, average = make_ddt(), make_ddt().requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    followed, followers = list(model.parameters()), list(average.parameters())
    settings = {"lr": 2e-4, "betas": (0.9, 0.95), "weight_decay": 0}
    fused = None if options.as_written else True
    optimizer = torch.optim.AdamW(trained, **settings, fused=fused)
    encode = make_encode(fast=not options.as_shipped)
    velocity = torch.compile(model, dynamic=False)
    images = torch.rand(options.batch, 3, PIXELS, PIXELS, device="cuda")
    labels = torch.randint(CLASSES, (options.batch,), device="cuda")

    @torch.no_grad()
    def follow() -> None:
        if not options.as_written:
            torch._foreach_lerp_(followers, followed, 1 - DECAY)
            return
        for follower, parameter in zip(followers, followed, strict=True):
            follower.mul_(DECAY).add_(parameter, alpha=1 - DECAY)

    def step() -> torch.Tensor:
        latent = encode(images)
        t = torch.sigmoid(torch.randn(options.batch, device="cuda"))
        t = SHIFT * t / (1 + (SHIFT - 1) * t)
        noise = torch.randn_like(latent)
        at = t[:, None, None, None]
        dropped = torch.rand(options.batch, device="cuda") < DROPOUT
        with torch.autocast("cuda", torch.bfloat16):
            predicted = velocity(
                (1 - at) * latent + at * noise, t, torch.where(dropped, NULL, labels)
            )
        loss = F.mse_loss(predicted.float(), noise - latent)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        follow()
        return loss

    yield Timed(step, lambda seconds: rates(seconds, options.batch, TFLOP_STEP))


def measure_sample(options: argparse.Namespace) -> Iterator[Timed]:
    """Times noise to latents without and with CFG, 50 points of the official grid."""
    model = make_ddt().requires_grad_(False).eval()
    velocity = torch.compile(model, dynamic=False)
    count = options.sample_batch
    noise = torch.randn(count, CHANNELS, GRID, GRID, device="cuda")
    labels = torch.arange(count, device="cuda") % CLASSES
    times = 1 - torch.linspace(0, 0.999, 50, dtype=torch.float64)
    times = (SHIFT * times / (1 + (SHIFT - 1) * times)).tolist()

    @torch.no_grad()
    def sample(scale: float) -> torch.Tensor:
        x, guided = noise, scale != 1
        y = torch.cat([labels, torch.full_like(labels, NULL)]) if guided else labels
        for t, t_next in itertools.pairwise(times):
            both = torch.cat([x, x]) if guided else x
            time = torch.full((len(both),), t, device="cuda")
            with torch.autocast("cuda", torch.bfloat16):
                v = velocity(both, time, y).float()
            if guided:
                strong, weak = v.chunk(2)
                v = weak + scale * (strong - weak)
            x = x + (t_next - t) * v
        return x

    for scale in (1.0, 1.5):
        work = 49 * (1 if scale == 1 else 2) * TFLOP_EVALUATION
        yield Timed(
            functools.partial(sample, scale),
            lambda seconds, scale=scale, work=work: (
                {"cfg_scale": scale} | rates(seconds, count, work)
            ),
            repeats=1,
        )


def measure_ceiling(options: argparse.Namespace) -> Iterator[Timed]:
    """Times a product of square bfloat16 matrices, cold and warm."""
    left, right = torch.randn(2, CEILING_SIZE, CEILING_SIZE, device="cuda", dtype=torch.bfloat16)

    def product() -> torch.Tensor:
        return left @ right

    def describe(state: str, seconds: tuple[float, float]) -> dict[str, Any]:
        tflops = 2e-12 * CEILING_SIZE**3 / seconds[1]
        return {"state": state, "ms": round(1e3 * seconds[1], 3), "tflops": round(tflops, 1)}

    warm = functools.partial(heat, product, wait, WARM_SECONDS)
    yield Timed(product, functools.partial(describe, "cold"), repeats=10)
    yield Timed(product, functools.partial(describe, "warm"), warm, repeats=10)


MEASUREMENTS = {"ceiling": measure_ceiling, "train": measure_train, "sample": measure_sample}


def main() -> None:
    """Prints a line for every part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--parts", nargs="+", default=["ceiling", "train", "sample"], choices=MEASUREMENTS
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--sample_batch", type=int, default=64)
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--window_seconds", type=float, default=0, help="0: ten calls a window")
    parser.add_argument("--turn", default="", help="compile, make PATH.ready, wait for PATH.go")
    parser.add_argument("--as_written", action="store_true", help="plain AdamW and EMA")
    parser.add_argument("--as_shipped", action="store_true", help="and an eager float32 encoder")
    options = parser.parse_args()
    options.as_written |= options.as_shipped
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    facts = {
        "framework": f"torch {torch.__version__}",
        "as_written": options.as_written,
        "as_shipped": options.as_shipped,
        "device": torch.cuda.get_device_name(),
        "date": time.strftime("%Y-%m-%d"),
    }
    parts = ((part, each) for part in options.parts for each in MEASUREMENTS[part](options))
    firsts: Iterator[float | None] = itertools.repeat(None)
    if options.turn:
        listed = [*parts]
        firsts = iter([first_call(each.call, wait) for _, each in listed])
        torch.cuda.empty_cache()
        wait_for_turn(options.turn)
        parts = iter(listed)
    for part, each in parts:
        torch.cuda.reset_peak_memory_stats()
        each.before()
        seconds = median_seconds(
            each.call,
            wait,
            windows=options.windows,
            repeats=each.repeats or 10,
            window_seconds=0 if each.repeats else options.window_seconds,
        )
        first = next(firsts)
        line = each.describe(seconds if first is None else (first, seconds[1]))
        peak = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        print(json.dumps({"part": part} | line | facts | {"peak_gib": peak}), flush=True)


if __name__ == "__main__":
    main()
