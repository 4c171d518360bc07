"""What goes with weights that are no run, and how such weights are sampled."""

import dataclasses
from typing import Any

from rae_dit.api import decoder_pixels_of
from rae_dit.architecture import Pixels
from rae_dit.config import ConfigError
from rae_dit.config.check import convert
from rae_dit.config.compatibility import ADDED
from rae_dit.config.modes import SampleConfig

# Of weights that no config of ours comes with: the sampler of the RAE paper, unguided.
RELEASED: SampleConfig = convert(
    SampleConfig,
    {
        "num_samples": 8,
        "num_steps": 50,
        "method": "euler",
        "grid": "official",
        "rtol": 1e-3,
        "atol": 1e-6,
        "diffusion_norm": 1.0,
        "last_step": "mean",
        "last_step_size": 0.04,
        "guidance": "cfg",
        "guide_checkpoint": "",
        "cfg_scale": 1.0,
        "cfg_interval": (0.0, 1.0),
        "internal_scale": 1.0,
        "internal_interval": (0.0, 1.0),
        "labels": "",
        "class_list": "",
        "class_names": "",
        "label_mode": "equal",
        "batch_size": 8,
        "output_dir": "",
        "seed": 0,
    }
    | {path.removeprefix("sample."): v for path, v in ADDED.items() if path.startswith("sample.")},
    "sample",
)

# As its reference samples (configs/dit2_dinov3.py).
RAEV2: dict[str, Any] = {
    "num_steps": 100,
    "grid": "full",
    "guidance": "internal",
    "cfg_scale": 1.78,
    "cfg_interval": (0.1, 1.0),
}


@dataclasses.dataclass(frozen=True)
class Parts:
    """What goes with weights that are no run; '' where nothing is given.

    Attributes:
        encoder: of the autoencoder, as `load_rae` takes it.
        decoder: of the autoencoder.
        stats: latent statistics.
        encoder_input_size: side in pixels of what the encoder sees.
        encoder_layers: blocks, from 0, whose outputs are averaged; () takes the last.
        encoder_add_mean: add the mean of the last of them over all patches.
        decoder_pixels: what the decoder gives, where its file does not say: "normalized" or "unit".
        guide: weaker model of AutoGuidance, for runs too.
        class_names: file of the names of all classes, for runs too.
    """

    encoder: str = ""
    decoder: str = ""
    stats: str = ""
    encoder_input_size: int | None = None
    encoder_layers: tuple[int, ...] = ()
    encoder_add_mean: bool = False
    decoder_pixels: Pixels | None = None
    guide: str = ""
    class_names: str = ""

    def arguments(self) -> list[str]:
        """Returns the arguments of the command line that say the same."""
        words = []
        for name, value in dataclasses.asdict(self).items():
            flag = f"--{name.replace('_', '-')}"
            if value is True:
                words.append(flag)
            elif value:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else value
                words.append(f"{flag}={text}")
        return words


def check_raev2(parts: Parts) -> None:
    """Checks that an RAEv2 network's autoencoder is described: its files do not say it all.

    Raises:
        ConfigError: what the encoder averages, or what the decoder gives, is not said.
    """
    if not parts.encoder_layers:
        raise ConfigError(
            "--encoder-layers: missing; expected the blocks that RAEv2's encoder averages, such as "
            "11,13,15,17,19,21,23 (with --encoder-add-mean), or the last one alone"
        )
    if parts.decoder_pixels is None and decoder_pixels_of(parts.decoder) is None:
        raise ConfigError(
            "--decoder-pixels: missing; expected 'unit', as RAEv2's decoders give images, or "
            "'normalized'"
        )
