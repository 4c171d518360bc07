"""Model cards: the README.md of a published model."""

import dataclasses
import json
from typing import Any

from rae_dit.config import Config

# Of evaluation.json and reconstruction.json: what was measured, in words.
MEASURES = {
    "fid": "FID",
    "sfid": "sFID",
    "inception_score": "Inception score",
    "precision": "precision",
    "recall": "recall",
    "class_accuracy": "share of samples that a classifier reads as their class",
    "frechet": "Frechet distance of gray levels",
    "rfid": "FID of reconstructions",
    "psnr": "PSNR of reconstructions (dB)",
    "ssim": "SSIM of reconstructions",
    "lpips": "LPIPS of reconstructions",
    "l1": "mean |difference| of reconstructions",
}
HOW = ("num_samples", "num_steps", "method", "guidance", "cfg_scale_guided", "cfg_interval", "seed")


@dataclasses.dataclass(frozen=True)
class Card:
    """What a card says.

    Attributes:
        name: of the model.
        license: in the hub's words.
        step: of the run.
        config: as published.
        shift: time shift of sampling.
        encoder: whether the encoder's weights are in the directory.
        figures: name of a report -> its content.
        command: that makes the samples; None if there are none.
    """

    name: str
    license: str
    step: int
    config: Config
    shift: float
    encoder: bool
    figures: dict[str, Any]
    command: str | None


def card_text(card: Card) -> str:
    """Returns the card in Markdown, with the header that the hub reads."""
    parts = [header(card), f"# {card.name.rpartition('/')[2]}", summary(card)]
    if card.command is not None:
        parts += [
            "![Samples, a row for each class](samples.png)",
            f"Made by:\n\n```bash\n{card.command}\n```",
        ]
    parts += [use(card), *measured(card.figures), training(card)]
    return "\n\n".join(parts) + "\n"


def header(card: Card) -> str:
    """Returns the YAML that the hub reads."""
    lines = ["---", f"license: {json.dumps(card.license)}", "library_name: rae_dit"]
    if card.config.trained_network == "ddt":
        lines.append("pipeline_tag: unconditional-image-generation")
    source = card.config.encoder.pretrained.partition("@")[0]
    if source and not card.encoder:
        lines.append(f"base_model: {json.dumps(source)}")
    return "\n".join([*lines, "tags: [jax, flax, rae, diffusion]", "---"])


def summary(card: Card) -> str:
    """Says in a sentence or two what the model is."""
    config = card.config
    size = f"{config.data.image_size} x {config.data.image_size} pixels"
    if config.trained_network == "ddt":
        what = f"A DiT^DH with its autoencoder: images of {size}, {config.data.num_classes} classes"
    else:
        what = f"A representation autoencoder for images of {size}"
    encoder = "The encoder's weights are included."
    if not card.encoder:
        encoder = f"The encoder is {config.encoder.pretrained}, read from the hub."
    return f"{what}; step {card.step:,} of training with rae_dit. {encoder}"


def use(card: Card) -> str:
    """Shows how the model is loaded."""
    lines = ["import jax, numpy as np, rae_dit", "", f"rae = rae_dit.load_rae({card.name!r})"]
    if card.config.trained_network == "ddt":
        lines += [
            f"ddt = rae_dit.load_ddt({card.name!r})",
            "",
            "labels = np.arange(4)",
            "noise = jax.random.normal(jax.random.key(0), (4, *rae.latent_shape))",
            "latents = rae_dit.sample_latents(",
            *(f"    {text}," for text in ("ddt", "noise", "labels", *keywords(card))),
            ")",
            "images = rae.decode(latents)  # f32 [4, H, W, 3], about [0, 1]",
        ]
    else:
        lines += ["latents = rae.encode(images)  # f32 [B, H, W, 3] in [0, 1]"]
    code = "\n".join(lines)
    where = "The name is that of this repository, or of a directory with its files."
    return f"## Use\n\n{where}\n\n```python\n{code}\n```"


def keywords(card: Card) -> list[str]:
    """Returns the keyword arguments of `sample_latents` that sample as the run's config does.

    The guide of AutoGuidance is another model, so such a config is shown without guidance.
    """
    sample = card.config.sample
    found: dict[str, Any] = {
        "steps": sample.num_steps,
        "method": sample.method,
        "grid": sample.grid,
    }
    if sample.method == "dopri5":
        found |= {"rtol": sample.rtol, "atol": sample.atol}
    if sample.cfg_scale != 1 and sample.guidance != "autoguidance":
        found |= {
            "guidance": sample.guidance,
            "cfg_scale": sample.cfg_scale,
            "cfg_interval": sample.cfg_interval,
        }
    if sample.internal_scale != 1 and sample.guidance != "autoguidance":
        found |= {
            "internal_scale": sample.internal_scale,
            "internal_interval": sample.internal_interval,
        }
    if sample.internal_null_scale is not None:
        found["internal_null_scale"] = sample.internal_null_scale
    found["shift"] = card.shift
    return [f"{name}={value!r}" for name, value in found.items()]


def measured(figures: dict[str, Any]) -> list[str]:
    """Returns a table of each report, with what its figures depend on."""
    parts = []
    for name, report in figures.items():
        rows = []
        for key, value in report.items():
            kind = next((k for k in MEASURES if key == k or key.startswith(f"{k}_")), None)
            if kind is None or not isinstance(value, int | float) or isinstance(value, bool):
                continue
            which = key.removeprefix(kind).strip("_")
            rows.append(f"| {MEASURES[kind]}{f', {which}' if which else ''} | {value:.4g} |")
        if not rows:
            continue
        how = ", ".join(f"{key} {report[key]}" for key in HOW if report.get(key) is not None)
        table = "\n".join(["| measure | value |", "|---|---|", *rows])
        parts.append(f"## Measured ({name})\n\n{table}" + (f"\n\n{how}" if how else ""))
    return parts


def training(card: Card) -> str:
    """Says how it was trained; all settings are in config.json."""
    config = card.config
    optim = config.optim
    return (
        f"## Training\n\nData: {config.data.source}, {config.data.num_classes} classes. "
        f"{card.step:,} steps of {config.data.batch_size} images with {optim.name}, learning rate "
        f"{optim.learning_rate:g}, EMA of decay {config.ema.decay:g} (these weights), precision "
        f"{config.precision}. All settings are in config.json."
    )
