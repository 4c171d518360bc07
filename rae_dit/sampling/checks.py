"""Checks of a sampler's inputs and guidance, before anything is compiled."""

from jaxtyping import Array

from rae_dit.diffusion.sampler import SamplerOptions, internal_settings
from rae_dit.models.ddt import DDT


def check_inputs(ddt: DDT, noise: Array, labels: Array) -> None:
    """Raises ValueError if noise or labels do not fit the model."""
    size = ddt.grid * ddt.patch_size
    expected = (len(labels), size, size, ddt.in_channels)
    if noise.shape != expected:
        raise ValueError(
            f"noise: got shape {noise.shape}; expected {expected} for {len(labels)} labels and "
            "this model"
        )


def check_guidance(ddt: DDT, guide: DDT | None, options: SamplerOptions, cfg_scale: float) -> None:
    """Raises ValueError if a guide is missing or unused, or there is no second head to guide by."""
    if (guide is not None) != (options.guidance == "autoguidance"):
        got = "None" if guide is None else "a model"
        raise ValueError(
            f"guide: got {got} with guidance {options.guidance!r}; expected a model "
            "for 'autoguidance' and None otherwise"
        )
    if options.guidance == "internal" and options.internal_null_scale is not None:
        raise ValueError(
            f"internal_null_scale: got {options.internal_null_scale}; expected None with guidance "
            "'internal', whose one scale is cfg_scale"
        )
    if options.guidance == "internal" and options.internal_scale != 1.0:
        raise ValueError(
            f"internal_scale: got {options.internal_scale}; expected 1 with guidance 'internal', "
            "whose scale is cfg_scale"
        )
    if internal_settings(options, float(cfg_scale)) is not None and not ddt.architecture.base_depth:
        raise ValueError(
            "guidance: got internal guidance; expected a network with a second head (base_depth)"
        )
