"""Sampling small enough for a test: the golden DiT^DH, its velocity not zero, and its guide."""

from pathlib import Path

import numpy as np
from PIL import Image

from rae_dit.config import Config
from support.golden_files import GOLDEN
from support.small_run import small_config

GUIDE = str(GOLDEN / "ddt_default_weak.pt")
GUIDED = {"sample.guidance": "autoguidance", "sample.guide_checkpoint": GUIDE}
SETTINGS = {
    "data.num_classes": 10,
    "encoder.hidden_size": 24,
    "encoder.depth": 1,
    "decoder.depth": 1,
    "ddt.pretrained": str(GOLDEN / "ddt_default.pt"),
    "ddt.hidden_size": (48, 64),
    "ddt.depth": (3, 2),
    "ddt.num_heads": (4, 4),
    "compute.scan_layers": True,  # compiles faster
    "flow.shift": 2.5,
    "sample.num_steps": 4,
    "sample.num_samples": 20,
    "sample.batch_size": 7,  # filled up to 8 on the 8 devices
}


def sampling_config(**changes) -> Config:
    """The config of such a run, with dotted fields changed."""
    return small_config(**(SETTINGS | changes))


def pixels(directory: Path) -> dict[str, np.ndarray]:
    """The numbered images of a directory, by the names of their files."""
    return {path.name: np.asarray(Image.open(path)) for path in directory.glob("[0-9]*.png")}
