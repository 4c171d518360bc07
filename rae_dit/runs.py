"""Finds a run of ours on disk and reads the config it was made with."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import ml_collections

from rae_dit.config import Config, ConfigError, from_config_dict
from rae_dit.models.layers import Dtype


def find_run(path: str | Path) -> Path | None:
    """The workdir that `path` is, or whose checkpoints or single step it is; None for neither."""
    path = Path(path).absolute()
    if not path.is_dir():
        return None
    for directory in (path, path.parent, path.parent.parent):
        if (directory / "checkpoints").is_dir() and (directory / "config.json").is_file():
            return directory
    return None


def has_checkpoint(workdir: Path) -> bool:
    """Whether a run has saved anything, sound or not."""
    return any((workdir / "checkpoints").glob("[0-9]*"))


def newest_step(workdir: Path) -> int | None:
    """The newest step that a run has saved; None for none."""
    names = (path.name for path in (workdir / "checkpoints").glob("[0-9]*"))
    return max((int(name) for name in names if name.isdigit()), default=None)


def read_config(workdir: Path) -> Config:
    """The config of a run, as its config.json has it.

    Raises:
        ConfigError: it is not JSON, or of another version of this project.
    """
    path = workdir / "config.json"
    try:
        values = json.loads(path.read_text())
        return from_config_dict(ml_collections.ConfigDict(values))
    except (json.JSONDecodeError, ConfigError) as error:
        raise ConfigError(f"{path} is not a config of this version: {error}") from error


def with_compute(
    config: Config,
    *,
    dtype: Dtype = jnp.float32,
    attention: str = "auto",
    scan_layers: bool = True,
    remat: str = "none",
) -> Config:
    """The config with other ways to compute, whatever the run trained with.

    Raises:
        ConfigError: dtype is neither float32 nor bfloat16, or another choice does not exist.
    """
    precisions = {jnp.dtype(jnp.float32): "fp32", jnp.dtype(jnp.bfloat16): "bf16"}
    if jnp.dtype(dtype) not in precisions:
        raise ConfigError(f"dtype: got {jnp.dtype(dtype)}, expected float32 or bfloat16")
    values = dataclasses.asdict(config)
    values["precision"] = precisions[jnp.dtype(dtype)]
    values["compute"] |= {"attention": attention, "scan_layers": scan_layers, "remat": remat}
    return from_config_dict(ml_collections.ConfigDict(values))
