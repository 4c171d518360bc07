"""Settings of the page's images: from what was typed to a sampler, a mistake is one line."""

import dataclasses
import re
import shlex
from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

import numpy as np

from rae_dit.config import ConfigError
from rae_dit.config.check import did_you_mean, invalid_value
from rae_dit.config.modes import SampleConfig
from rae_dit.demo.model import Model, changed
from rae_dit.demo.parts import Parts
from rae_dit.sampling.generate import GenerationSettings
from rae_dit.sampling.mean_flow import METHOD, check_jumps
from rae_dit.setup.sampling import options_of

MAX_IMAGES = 64  # of one press of the button; a command makes more
MAX_STEPS = 1000
LARGEST_SEED = 2**32 - 1
BATCH = 8  # images at once, on the page and by its command: "dopri5" depends on it
NONE = "none"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What images are made with besides a model; sound for that model.

    Attributes:
        labels: classes, taken in turn.
        number: of images.
        seed: of the noise; image i has the same noise with every model and setting.
        sample: everything of the sampler.
        guidance: "none" or a kind of guidance, as chosen.
    """

    labels: tuple[int, ...]
    number: int
    seed: int
    sample: SampleConfig
    guidance: str

    @property
    def scale(self) -> float:
        """Guidance scale; 1 is none."""
        return 1.0 if self.guidance == NONE else self.sample.cfg_scale

    def image_labels(self) -> list[int]:
        """Returns the label of each image."""
        return [int(label) for label in np.resize(self.labels, self.number)]

    def generation(self, shift: float) -> GenerationSettings:
        """Returns what `sampling.generate` takes."""
        return GenerationSettings(options_of(self.sample, shift), BATCH, self.seed)


def methods(model: Model | None = None) -> list[str]:
    """Lists the solvers that a config knows; of a model, those that it has the network for."""
    known: list[str] = list(get_args(get_type_hints(SampleConfig)["method"]))
    jumps = model is None or (
        model.generator is not None and model.generator.ddt.interval_embedding is not None
    )
    return known if jumps else [name for name in known if name != METHOD]


def class_choices(names: Sequence[str]) -> list[str]:
    """Returns how classes are listed: their names, behind their numbers unless these say it all."""
    return [name if name == str(i) else f"{i} {name}" for i, name in enumerate(names)]


def read_classes(chosen: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
    """Reads classes: names, entries of `class_choices`, numbers, ranges such as 3-5; none is all.

    Raises:
        ConfigError: there is no such class; names the nearest.
    """
    listed = class_choices(names)
    by_name = {text.lower(): i for i in reversed(range(len(names))) for text in (names[i],)}
    by_name |= {text.lower(): i for i, text in enumerate(listed)}
    found: list[int] = []
    for text in (part.strip() for one in chosen for part in split(one, by_name)):
        numbers = re.fullmatch(r"(\d{1,9})\s*(?:-\s*(\d{1,9}))?", text)
        if text.lower() in by_name:
            found.append(by_name[text.lower()])
        elif numbers and int(numbers[1]) <= int(numbers[2] or numbers[1]) < len(names):
            found += range(int(numbers[1]), int(numbers[2] or numbers[1]) + 1)
        else:
            hint = did_you_mean(text.lower(), by_name)
            expected = f"names or numbers of classes, 0 to {len(names) - 1}{hint}"
            raise invalid_value("classes", text[:80], expected)
    return tuple(found) or tuple(range(len(names)))


def split(text: str, known: dict[str, int]) -> list[str]:
    """Splits at commas, unless the whole is a name."""
    text = str(text)
    return [text] if text.strip().lower() in known else [part for part in text.split(",") if part]


def read_settings(
    model: Model,
    *,
    classes: Sequence[str],
    number: Any,
    seed: Any,
    method: str,
    steps: Any,
    guidance: str,
    scale: Any,
    interval: tuple[Any, Any],
    most: int | None = MAX_IMAGES,
) -> Settings:
    """Checks what was typed or chosen.

    Args:
        model: that is to make the images.
        classes: see `read_classes`.
        number: of images.
        seed: of the noise.
        method: solver.
        steps: its points or updates.
        guidance: "none" or a kind.
        scale: of guidance.
        interval: lowest and highest time of guidance.
        most: images that are allowed; None for any number.

    Raises:
        ConfigError: something is not what it should be, or the model cannot do it.
    """
    if model.generator is None:
        raise invalid_value("model", model.source, "a run of stage 2; this one makes no images")
    if guidance not in model.guidance_kinds:
        expected = f"one of {', '.join(model.guidance_kinds)} for {model.source}"
        raise invalid_value("guidance", guidance, expected)
    count = whole("number", number, 1, most)
    kind = "cfg" if guidance == NONE else guidance
    changes = {
        "num_samples": count,
        "seed": whole("seed", seed, 0, LARGEST_SEED),
        "method": method,
        "num_steps": whole("steps", steps, 1, MAX_STEPS),
        "guidance": kind,
        "guide_checkpoint": model.sample.guide_checkpoint if kind == "autoguidance" else "",
        "cfg_scale": 1.0 if guidance == NONE else scale,
        "cfg_interval": tuple(interval),
    }
    if guidance in (NONE, "internal") or method == METHOD:
        changes["internal_scale"] = 1.0
    if guidance != "cfg":  # of whose branch without class it is
        changes["internal_null_scale"] = None
    if method == METHOD:
        changes["grid"] = "full"  # the only one of jumps, for which the page has no field
    sample = changed(model.sample, changes)
    settings = Settings(
        read_classes(classes, model.class_names), count, sample.seed, sample, guidance
    )
    if method == METHOD:
        options = settings.generation(model.shift).options
        try:
            check_jumps(model.generator.ddt, options, settings.scale)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    return settings


def whole(name: str, value: Any, low: int, high: int | None) -> int:
    """Returns a whole number of a range.

    Raises:
        ConfigError: it is none; a page's field may also be empty or hold text.
    """
    top = f" to {high}" if high is not None else " or more"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or value != value or value in (float("inf"), -float("inf")):
        raise invalid_value(name, value, f"a whole number, {low}{top}")
    if value != int(value) or value < low or (high is not None and value > high):
        above = high is not None and value > high
        more = "; the command below makes more" if name == "number" and above else ""
        raise invalid_value(name, value, f"a whole number, {low}{top}{more}")
    return int(value)


def command(model: Model, settings: Settings, parts: Parts, directory: str = "images") -> str:
    """Returns the command that makes the same images, pixel for pixel on the same machine.

    Args:
        model: of the images.
        settings: of the images.
        parts: of the page's command line.
        directory: to write to.
    """
    sample = settings.sample
    low, high = sample.cfg_interval
    words = [
        *("python", "-m", "rae_dit.demo", model.source, *parts.arguments()),
        f"--write={directory}",
        f"--classes={','.join(map(str, settings.labels))}",
        f"--number={settings.number}",
        f"--seed={settings.seed}",
        f"--method={sample.method}",
        f"--steps={sample.num_steps}",
        f"--guidance={settings.guidance}",
    ]
    if settings.guidance != NONE:
        words += [f"--scale={sample.cfg_scale!r}", f"--interval={low!r},{high!r}"]
    return shlex.join(words)
