"""The configuration of a run; `from_config_dict` makes a `Config`.

A config file (configs/*.py) gives an `ml_collections.ConfigDict` of plain values. Here it becomes
frozen dataclasses; the files beside this one document their fields. Every mistake is a
`ConfigError` of one line. No JAX here, so that it is reported before any device is initialized.
"""

import dataclasses
from typing import Any, Literal

import ml_collections

from rae_dit.config.check import ConfigError, convert, declared_type, describe, invalid_value
from rae_dit.config.evaluation import EvaluateConfig, ReconstructConfig
from rae_dit.config.few_steps import FewStepConfig
from rae_dit.config.models import DDTConfig, DecoderConfig, EncoderConfig, FlowConfig
from rae_dit.config.modes import LatentsConfig, ProbeConfig, SampleConfig, StatsConfig, SweepConfig
from rae_dit.config.rules import check_attention, check_split, parse_labels
from rae_dit.config.stage1 import DiscriminatorConfig, GanConfig, PerceptualConfig
from rae_dit.config.training import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EmaConfig,
    MetricsConfig,
    OptimConfig,
    ShardingConfig,
)
from rae_dit.ranges import Seed

__all__ = [
    "Config",
    "ConfigError",
    "check_devices",
    "describe_field",
    "from_config_dict",
    "parse_labels",
    "to_dict",
]

Objective = Literal["classification", "reconstruction", "flow_matching", "trajectory", "mean_flow"]
FEW_STEPS = ("trajectory", "mean_flow")
LPIPS_MINIMUM = 16  # pixels


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything a run needs to know."""

    objective: Objective  # of mode 'train'
    seed: Seed  # of everything random but sampling
    # Of matrix products, all else is float32; 'fp8' is 'bf16' but in the blocks of a DiT^DH
    precision: Literal["fp32", "tf32", "bf16", "fp8"]
    data: DataConfig
    encoder: EncoderConfig
    decoder: DecoderConfig
    ddt: DDTConfig
    flow: FlowConfig
    few_step: FewStepConfig
    perceptual: PerceptualConfig
    gan: GanConfig
    discriminator: DiscriminatorConfig
    optim: OptimConfig
    ema: EmaConfig
    compute: ComputeConfig
    sharding: ShardingConfig
    checkpoint: CheckpointConfig
    metrics: MetricsConfig
    sample: SampleConfig
    evaluate: EvaluateConfig
    sweep: SweepConfig
    reconstruct: ReconstructConfig
    probe: ProbeConfig
    stats: StatsConfig
    latents: LatentsConfig

    def __post_init__(self) -> None:
        """Checks fields of different sections against each other."""
        if self.data.batch_size % self.optim.accumulate_steps:
            expected = f"a multiple of optim.accumulate_steps = {self.optim.accumulate_steps}"
            raise invalid_value("data.batch_size", self.data.batch_size, expected)
        parse_labels(self.sample.labels, self.data.num_classes)
        if self.data.source == "latents" and self.trained_network != "ddt":
            expected = f"a source of images because objective {self.objective!r} needs pixels"
            raise invalid_value("data.source", self.data.source, expected)
        if self.metrics.evaluate_every is not None and self.trained_network != "ddt":
            expected = f"None because objective {self.objective!r} makes no images"
            raise invalid_value("metrics.evaluate_every", self.metrics.evaluate_every, expected)
        if self.metrics.sample_every is not None and self.trained_network in ("encoder", "head"):
            expected = f"None because objective {self.objective!r} makes no images"
            raise invalid_value("metrics.sample_every", self.metrics.sample_every, expected)
        grid = self.encoder.input_size // self.encoder.patch_size
        cells = f"{grid} latent cells per side (encoder.input_size / encoder.patch_size)"
        if grid % self.ddt.patch_size:
            raise invalid_value("ddt.patch_size", self.ddt.patch_size, f"a divisor of the {cells}")
        # Reconstruction and training image are compared pixel by pixel, so their sides are equal.
        # An upsampling decoder means a larger data.image_size at the same encoder.input_size.
        made = grid * self.decoder.patch_size
        if made != self.data.image_size:
            expected = f"{made} = decoder.patch_size {self.decoder.patch_size} x {cells}"
            raise invalid_value("data.image_size", self.data.image_size, expected)
        if self.perceptual.weight and self.data.image_size < LPIPS_MINIMUM:
            expected = f"0 for images below {LPIPS_MINIMUM} pixels, which LPIPS cannot halve"
            raise invalid_value("perceptual.weight", self.perceptual.weight, expected)
        internal = self.sample.guidance == "internal" or self.sample.internal_scale != 1
        internal |= self.sample.internal_null_scale not in (None, 1)
        if internal and not self.ddt.base_depth and self.trained_network == "ddt":
            expected = "more than 0: internal guidance needs a second head"
            raise invalid_value("ddt.base_depth", self.ddt.base_depth, expected)
        if self.flow.base_weight != 1 and not self.ddt.base_depth:
            expected = "1 because ddt.base_depth is 0: there is no second head to weigh"
            raise invalid_value("flow.base_weight", self.flow.base_weight, expected)
        if self.precision == "fp8" and self.objective != "flow_matching":
            expected = f"another: objective {self.objective!r} has no product of 8-bit floats"
            raise invalid_value("precision", self.precision, expected)
        self.check_two_times()
        if self.discriminator.features == "encoder":
            self.discriminator.check_layers(self.encoder.depth)

    def check_two_times(self) -> None:
        """Checks that objective, sampler and DiT^DH agree on one time or two."""
        two_times = self.ddt.interval_embedding
        if two_times and self.flow.prediction == "x":
            raise invalid_value("ddt.interval_embedding", True, "False with flow.prediction 'x'")
        if self.trained_network == "ddt" and two_times != (self.objective in FEW_STEPS):
            expected = f"{not two_times} because objective is {self.objective!r}"
            raise invalid_value("ddt.interval_embedding", two_times, expected)
        if self.trained_network == "ddt" and self.sample.method == "mean_flow" and not two_times:
            expected = "another solver, because ddt.interval_embedding is False"
            raise invalid_value("sample.method", "mean_flow", expected)
        pairs = self.few_step.pairs
        if self.objective == "trajectory" and self.data.batch_size % pairs:
            expected = f"a multiple of few_step.pairs = {pairs}"
            raise invalid_value("data.batch_size", self.data.batch_size, expected)

    @property
    def is_half(self) -> bool:
        """Whether networks compute in bfloat16, but for the products of 'fp8'."""
        return self.precision in ("bf16", "fp8")

    @property
    def trained_network(self) -> Literal["ddt", "decoder", "encoder", "head"]:
        """The network that a run of this config trains; checkpoints hold its parameters."""
        match self.objective:
            case "flow_matching" | "trajectory" | "mean_flow":
                return "ddt"
            case "reconstruction":
                return "decoder"
            case "classification":
                return "head" if self.probe.freeze_encoder else "encoder"

    def in_steps(self, num_images: int) -> "Config":
        """Returns the config with every length in steps.

        Args:
            num_images: of the training data, which make an epoch.
        """
        steps_per_epoch = num_images // self.data.batch_size
        return dataclasses.replace(
            self,
            optim=self.optim.in_steps(steps_per_epoch),
            perceptual=self.perceptual.in_steps(steps_per_epoch),
            gan=self.gan.in_steps(steps_per_epoch),
        )


def from_config_dict(values: ml_collections.ConfigDict) -> Config:
    """Checks and freezes the values of a config file and the command line.

    Args:
        values: one entry per field of `Config`, sections nested.

    Raises:
        ConfigError: unknown, missing, wrongly typed or impossible field, in one line.
    """
    config: Config = convert(Config, values.to_dict(), "")
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """Returns a config as nested dicts for `json.dump`; `from_config_dict` reads them back."""
    return dataclasses.asdict(config, dict_factory=_listed)


def describe_field(path: str, value: str) -> str:
    """Describes the values that the field at a dotted path allows.

    Raises:
        ConfigError: there is no such field; `value` is quoted and the nearest field named.
    """
    return describe(declared_type(Config, path, value))


def check_devices(config: Config, *, platform: str, num_devices: int, num_processes: int) -> None:
    """Checks that the devices have the attention kernel and can split parameters and batch.

    Raises:
        ConfigError: names values that fit.
    """
    check_attention(config.compute.attention, config.precision, platform)
    rows = {
        "mean_flow": config.few_step.interval_every * config.optim.accumulate_steps,
        "trajectory": config.few_step.pairs,
    }
    check_split(
        batch_size=config.data.batch_size,
        rows=rows.get(config.objective, 1),
        accumulate_steps=config.optim.accumulate_steps,
        fsdp=config.sharding.fsdp,
        num_devices=num_devices,
        num_processes=num_processes,
    )


def _listed(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in items}
