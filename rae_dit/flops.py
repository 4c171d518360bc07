"""Model FLOPs of a run, counted from its config.

Only matrix products count, 2 m n k each, attention's two included: the *model FLOPs* of the
literature (PaLM, arXiv 2204.02311, appendix B). Resizing, norms, activations and the optimizer
are left out; so is whatever rematerialization computes twice, which makes

    model FLOPs utilization (MFU) = images/s x train_step FLOPs / peak FLOP/s      (1)

comparable between settings. XLA's own count cannot be used: it counts the body of a loop once.

A backward pass needs two products for each one of the forward pass, so a trained network costs
three forward passes, and a frozen one its forward pass alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

from rae_dit.config import Config
from rae_dit.hardware import find_device
from rae_dit.models.conditioning import FOURIER_FREQUENCIES
from rae_dit.models.encoders import find_family


class Matmul(NamedTuple):
    """`times` products [rows, inner] x [inner, columns] per image.

    Attributes:
        rows: tokens, or 1 where one product serves the whole image.
        inner: the axis that is summed over.
        columns: width of the result.
        times: how often, for one image's forward pass.
        weighted: True when the right side is a parameter: it is then shared by all images of a
            batch, which makes one product of batch x rows rows.
    """

    rows: int
    inner: int
    columns: int
    times: int = 1
    weighted: bool = True

    @property
    def flops(self) -> int:
        """FLOPs of all `times` products, for one image."""
        return 2 * self.rows * self.inner * self.columns * self.times


class ModelFlops(NamedTuple):
    """FLOPs of a forward pass for one image.

    Attributes:
        encoder: of the encoder.
        decoder: of the decoder.
        ddt: of one evaluation of the velocity without guidance.
    """

    encoder: int
    decoder: int
    ddt: int


class Work(NamedTuple):
    """Products of a training step: networks that are only used, the trained one, its optimizer.

    Networks of the loss alone (LPIPS and the discriminator of stage 1) are left out.

    Attributes:
        frozen: for one image.
        trained: of the forward pass for one image.
        optimizer: of Muon, once a step whatever the batch, whose `times` all devices share. No part
            of the model's FLOPs: it counts in predictions of time (planning/roofline) alone.
    """

    frozen: list[Matmul]
    trained: list[Matmul]
    optimizer: Sequence[Matmul] = ()


def model_flops(config: Config) -> ModelFlops:
    """Counts the forward passes of the config's networks."""
    return ModelFlops(
        encoder=total(encoder_matmuls(config)),
        decoder=total(decoder_matmuls(config)),
        ddt=total(ddt_matmuls(config)),
    )


def train_flops(work: Work) -> int:
    """Counts a training step for one image: a backward pass costs two forward passes."""
    return total(work.frozen) + 3 * total(work.trained)


def peak_flops(device_kind: str, precision: str) -> float | None:
    """Returns the vendor's dense FLOP/s of one device, the denominator of (1).

    Args:
        device_kind: `jax.Device.device_kind`, such as "NVIDIA H200" or "TPU v5 lite".
        precision: "fp8" (that of "bf16"), "bf16", "tf32" or "fp32", as in the config.

    Returns:
        FLOP/s; None for a device that is not in `hardware.DEVICES`, such as a CPU.
    """
    device = find_device(device_kind)
    return None if device is None else device.flops[precision]


def total(matmuls: list[Matmul]) -> int:
    """Sums the FLOPs for one image."""
    return sum(matmul.flops for matmul in matmuls)


def encoder_matmuls(config: Config) -> list[Matmul]:
    """Counts the encoder: patches, then blocks over patches and the tokens before them.

    Blocks after the last one that is read are not computed.
    """
    encoder = config.encoder
    depth = max(encoder.layers) + 1 if encoder.layers else encoder.depth
    patches = (encoder.input_size // encoder.patch_size) ** 2
    before = find_family(encoder.family).num_cls_tokens + encoder.num_registers
    return [
        Matmul(patches, 3 * encoder.patch_size**2, encoder.hidden_size),
        *transformer_matmuls(
            patches + before,
            encoder.hidden_size,
            int(encoder.hidden_size * encoder.mlp_ratio),
            encoder.num_heads,
            depth,
        ),
    ]


def decoder_matmuls(config: Config) -> list[Matmul]:
    """Counts the decoder: projection, blocks over tokens and CLS, pixels of each token."""
    decoder = config.decoder
    tokens = (config.encoder.input_size // config.encoder.patch_size) ** 2
    width = decoder.hidden_size
    return [
        Matmul(tokens, config.encoder.hidden_size, width),
        *transformer_matmuls(
            tokens + 1, width, decoder.intermediate_size, decoder.num_heads, decoder.depth
        ),
        Matmul(tokens, width, 3 * decoder.patch_size**2),
    ]


def ddt_tokens(config: Config) -> int:
    """Counts the tokens that the backbone attends over: patches, and conditions among them."""
    ddt = config.ddt
    patches = (config.encoder.input_size // config.encoder.patch_size // ddt.patch_size) ** 2
    return patches + (ddt.time_tokens + ddt.class_tokens if ddt.conditioning == "tokens" else 0)


def ddt_matmuls(config: Config) -> list[Matmul]:
    """Counts the DiT^DH.

    One condition per image modulates the backbone, or lengthens its sequence, and one per token
    modulates the head.
    """
    ddt = config.ddt
    narrow, wide = ddt.hidden_size
    tokens = (config.encoder.input_size // config.encoder.patch_size // ddt.patch_size) ** 2
    patch_width = ddt.patch_size**2 * config.encoder.hidden_size
    matmuls = [
        Matmul(tokens, patch_width, narrow),
        Matmul(tokens, patch_width, wide),
        Matmul(1, 2 * FOURIER_FREQUENCIES, narrow),
        Matmul(1, narrow, narrow),
        Matmul(tokens, wide, 2 * wide),  # final modulation
        Matmul(tokens, wide, patch_width),
    ]
    if ddt.interval_embedding:
        matmuls += [Matmul(1, 2 * FOURIER_FREQUENCIES, narrow), Matmul(1, narrow, narrow)]
    if narrow != wide:
        matmuls.append(Matmul(tokens, narrow, wide))
    in_context = ddt.conditioning == "tokens"
    if ddt.base_depth:
        matmuls += [Matmul(tokens, narrow, 2 * narrow), Matmul(tokens, narrow, patch_width)]
    lengths = (ddt_tokens(config), tokens)
    for part, width in enumerate(ddt.hidden_size):
        depth, hidden = ddt.depth[part], int(width * ddt.mlp_ratio)
        length = lengths[part]
        matmuls += attention_matmuls(length, width, ddt.num_heads[part], depth)
        if ddt.use_swiglu:
            hidden = int(2 / 3 * hidden)
        matmuls += [
            Matmul(length, width, 2 * hidden if ddt.use_swiglu else hidden, depth),
            Matmul(length, hidden, width, depth),
        ]
        if part == 1 or not in_context:
            matmuls.append(Matmul(1 if part == 0 else tokens, width, 6 * width, depth))
    return matmuls


def trajectory_matmuls(config: Config) -> list[Matmul]:
    """Counts a teacher's trajectories, shared by their pairs, for one row of "trajectory".

    The teacher is taken to have the student's sizes, here and in `mean_flow_matmuls`.
    """
    few = config.few_step
    updates = few.solver_steps - (few.solver_grid == "official")
    return shared(ddt_matmuls(config), teacher_passes(config) * updates, few.pairs)


def mean_flow_matmuls(config: Config, *, has_teacher: bool) -> list[Matmul]:
    """Counts what "mean_flow" computes for one row beside the trained DDT.

    du/dt costs two forward passes of the rows that have an interval.
    """
    derivative = shared(ddt_matmuls(config), 2, config.few_step.interval_every)
    teacher = shared(ddt_matmuls(config), teacher_passes(config), 1) if has_teacher else []
    cached = config.data.source == "latents"
    return ([] if cached else encoder_matmuls(config)) + derivative + teacher


def teacher_passes(config: Config) -> int:
    """Counts the evaluations of networks for one velocity of the few-step teacher."""
    few = config.few_step
    return 2 if few.cfg_scale != 1 and few.guidance != "internal" else 1


def shared(matmuls: list[Matmul], passes: int, rows: int) -> list[Matmul]:
    """Counts `passes` forward passes that are made once for so many rows."""
    return [m._replace(times=m.times * passes, rows=max(1, m.rows // rows)) for m in matmuls]


def transformer_matmuls(
    tokens: int, width: int, hidden: int, num_heads: int, depth: int
) -> list[Matmul]:
    """Counts `depth` blocks of attention and a two-layer MLP."""
    return [
        *attention_matmuls(tokens, width, num_heads, depth),
        Matmul(tokens, width, hidden, depth),
        Matmul(tokens, hidden, width, depth),
    ]


def attention_matmuls(tokens: int, width: int, num_heads: int, depth: int) -> list[Matmul]:
    """Counts `depth` times q, k, v and output projections, and each head's logits and mixing."""
    head_width = width // num_heads
    return [
        Matmul(tokens, width, 3 * width, depth),
        Matmul(tokens, width, width, depth),
        Matmul(tokens, head_width, tokens, depth * num_heads, weighted=False),
        Matmul(tokens, tokens, head_width, depth * num_heads, weighted=False),
    ]
