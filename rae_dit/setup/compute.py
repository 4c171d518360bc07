"""How networks compute, as a config or a caller of `api` says: attention, scan, remat, dtype."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jax.typing import DTypeLike

from rae_dit.architecture import Compute
from rae_dit.config import Config
from rae_dit.config.check import convert
from rae_dit.models import layers
from rae_dit.models.layers import Dtype


def compute(config: Config) -> Compute:
    """Returns how the config's networks compute."""
    return Compute(
        attention=config.compute.attention,
        scan_layers=config.compute.scan_layers,
        remat=config.compute.remat,
        dtype="bfloat16" if config.is_half else "float32",
        float8=config.precision == "fp8",
    )


def make_compute(
    *,
    dtype: DTypeLike = jnp.float32,
    attention: str = "auto",
    scan_layers: bool = True,
    remat: str = "none",
) -> Compute:
    """Converts the keyword arguments of `api.load_*`.

    Raises:
        ConfigError: dtype is neither float32 nor bfloat16, or another choice does not exist.
    """
    choices = {
        "dtype": jnp.dtype(dtype).name,
        "attention": attention,
        "scan_layers": scan_layers,
        "remat": remat,
        "float8": False,
    }
    return convert(Compute, choices, "")


def with_compute(config: Config, compute: Compute) -> Config:
    """Replaces how the config's networks compute, whatever the run trained with."""
    section = dataclasses.replace(
        config.compute,
        attention=compute.attention,
        scan_layers=compute.scan_layers,
        remat=compute.remat,
    )
    precision: Literal["fp32", "bf16", "fp8"] = "bf16" if compute.dtype == "bfloat16" else "fp32"
    if compute.float8:
        precision = "fp8"
    return dataclasses.replace(config, precision=precision, compute=section)


def compute_dtype(config: Config) -> Dtype:
    """Returns the dtype of matrix products; parameters are float32 in any case."""
    return layers.compute_dtype(compute(config))
