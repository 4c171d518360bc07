"""Fields that configs have got since runs began to be kept: what a run without them did.

A field that changes nothing for a run that was made before it gets its line here, so that the run's
config.json is read as what it was. A default of a new run may differ; that one is in configs/.
"""

from typing import Any

ADDED: dict[str, Any] = {
    "decoder.train_constants": False,
    "ddt.train_constants": False,
    "data.shuffle": "records",
    "data.numeric_classes": False,
    "decoder.pretrained_weights": "ema",
    "ddt.pretrained_weights": "ema",
    "ddt.conditioning": "adaln",
    "ddt.time_tokens": 4,
    "ddt.class_tokens": 8,
    "ddt.base_depth": 0,
    "ddt.interval_embedding": False,
    "ddt.checkpoint": "",
    "few_step": {
        "velocity": "teacher",
        "teacher": "",
        "guidance": "cfg",
        "guide_checkpoint": "",
        "cfg_scale": 1.0,
        "cfg_interval": [0.0, 1.0],
        "solver_steps": 16,
        "solver_grid": "official",
        "pairs": 64,
        "interval_every": 4,
        "adaptive_power": 1.0,
        "adaptive_constant": 1e-3,
        "tangent_warmup_steps": 0,
        "endpoint_samples": 64,
        "endpoint_steps": 50,
    },
    "flow.prediction": "v",
    "flow.base_weight": 1.0,
    "sample.internal_scale": 1.0,
    "sample.internal_interval": [0.0, 1.0],
    "sample.internal_null_scale": None,
    "decoder.pixels": "normalized",
    "encoder.layers": [],
    "encoder.add_mean": False,
    "gan.power_iteration": "per_update",
    "evaluate.sample_batch_size": None,
    "sample.precision": None,
    "latents": {"output": "", "storage": "bf16", "images_per_shard": 8192},
}
"""Dotted path -> the value that is equal to not having the field."""

DIVIDED = {
    "gan.epsilon": "optim.epsilon",
    "gan.weight_decay": "optim.weight_decay",
    "gan.clip_norm": "optim.clip_norm",
}
"""Dotted path -> the field that spoke for both before."""


def complete(values: dict[str, Any]) -> dict[str, Any]:
    """Adds the fields that a run's config.json does not have because it is older than they.

    Args:
        values: nested dicts; not changed.
    """
    result = {name: dict(v) if isinstance(v, dict) else v for name, v in values.items()}
    divided = {path: field(result, source) for path, source in DIVIDED.items()}
    for path, value in (ADDED | divided).items():
        *sections, name = path.split(".")
        section: Any = result
        for key in sections:
            section = section.get(key, {}) if isinstance(section, dict) else None
        if isinstance(section, dict):  # else the conversion refuses it
            section.setdefault(name, value)
    return result


def added(name: str) -> Any:
    """Returns what a result that is older than a value had for it; KeyError for other values.

    Args:
        name: of the value in a provenance: a dotted path, or a field of `sample` alone.
    """
    return ADDED[name] if name in ADDED else ADDED[f"sample.{name}"]


def field(values: dict[str, Any], path: str) -> Any:
    """Returns the value at a dotted path; None if there is none, which the conversion tells."""
    value: Any = values
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
