"""Weights & Biases as an optional metric writer."""

import importlib
import importlib.util
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rae_dit.config import ConfigError
from rae_dit.storage.files import write_text
from rae_dit.storage.places import is_url


def check_installed(project: str) -> None:
    """Checks that W&B is installed if a project is named, before anything takes time.

    Raises:
        ConfigError: a project is named, and the package is missing.
    """
    if project and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f"metrics.wandb_project: got {project!r}; the package wandb is not installed; "
            "pip install wandb, or leave the field ''"
        )


class WeightsAndBiases:
    """One W&B run for one workdir, however often it is started: its id is in wandb_id.txt.

    Values are logged against a metric 'step' of our own: W&B's counter refuses to go back, which a
    resumed run does. Whether it is online is up to W&B's own settings (WANDB_MODE).
    """

    def __init__(self, project: str, workdir: Path, config: dict[str, Any]) -> None:
        """Starts the run, or continues it.

        Args:
            project: its name at W&B.
            workdir: of the run; gives the W&B run its name.
            config: every value, for W&B's table of runs.
        """
        self._wandb = importlib.import_module("wandb")
        path = workdir / "wandb_id.txt"
        if not path.exists():
            write_text(path, secrets.token_hex(4))
        self._run = self._wandb.init(
            project=project,
            id=path.read_text().strip(),
            resume="allow",
            name=workdir.name,
            dir=tempfile.mkdtemp(prefix="rae_dit-wandb-") if is_url(workdir) else str(workdir),
            config=config,
        )
        self._run.define_metric("*", step_metric="step")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Sends the values of one step."""
        self._run.log({"step": step, **scalars})

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Sends pictures, uint8 [1, H, W, 3]."""
        pictures = {name: self._wandb.Image(image[0]) for name, image in images.items()}
        self._run.log({"step": step, **pictures})

    def flush(self) -> None:
        """Does nothing: W&B sends in the background."""

    def close(self) -> None:
        """Waits until everything is sent."""
        self._run.finish()
