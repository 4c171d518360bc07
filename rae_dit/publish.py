"""Publishing of a run: a directory with its weights, model card and samples, for the hub or a disk.

python -m rae_dit.weights publish RUN NAME [--license=mit] [--output=DIR] [--upload]
"""

import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np

from rae_dit.config import Config, to_dict
from rae_dit.config.check import invalid_value
from rae_dit.data.transforms import to_float
from rae_dit.demo.images import make_images
from rae_dit.demo.model import Model, load_model
from rae_dit.demo.parts import Parts
from rae_dit.demo.settings import Settings, command, read_settings
from rae_dit.evaluation.figures import sample_grid
from rae_dit.model_card import Card, card_text
from rae_dit.models.ddt import DDT
from rae_dit.setup.published import autoencoder_leaves, published_config
from rae_dit.storage.files import write_json, write_text
from rae_dit.storage.places import place
from rae_dit.version import __version__
from rae_dit.weights import publish as files
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.header import ddt_facts
from rae_dit.weights.hub import pinned
from rae_dit.weights.mapping import parameters_of
from rae_dit.weights.official import export_ddt
from rae_dit.weights.tensor_file import save_tensors
from rae_dit.workdir import find_run, newest_step, read_config

log = logging.getLogger(__name__)

NAME = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}")
CLASSES = 10  # rows of the picture
COLUMNS = 8


def publish(
    run: str | Path, name: str, output: Path, *, license: str, with_encoder: bool, samples: bool
) -> Path:
    """Makes the directory of a run's newest step, or of the one step that is named.

    Args:
        run: workdir, checkpoints or step of a run of stage 2 or 1.
        name: of the model: "name" or "owner/name", as on the hub.
        output: the directory; made, or one that was published before.
        license: for the card, in the hub's words ("mit"); "" for "unknown".
        with_encoder: whether to publish the weights of an encoder from elsewhere, too.
        samples: whether to draw samples for the card.

    Returns:
        The directory.

    Raises:
        ConfigError: no such run, a wrong name, an encoder that others cannot get.
        WeightsError: the weights have no names in the reference, or the directory holds other
            things.
        CheckpointError: the run has no sound checkpoint.
    """
    workdir = find_run(run)
    if workdir is None:
        raise invalid_value("RUN", str(run), "a run of rae_dit")
    if not NAME.fullmatch(name) or ".." in name or "--" in name:
        raise invalid_value("NAME", name, "letters, digits, - _ . as the hub allows, or owner/name")
    config = read_config(workdir)
    if config.trained_network not in ("ddt", "decoder"):
        raise invalid_value("RUN", str(run), "a run of stage 2 or 1")
    check_directory(output)
    check_trained(config)
    encoder = publishes_encoder(config, with_encoder=with_encoder)
    step = step_of(place(run), workdir)
    model = load_model(str(workdir / "checkpoints" / str(step)), Parts())
    output.mkdir(parents=True, exist_ok=True)
    (output / files.MANIFEST).unlink(missing_ok=True)  # until all is there again
    naming = "" if model.generator is None else save_ddt(output / files.DDT, model.generator.ddt)
    files.save_leaves(output / files.AUTOENCODER, autoencoder_leaves(model.rae, encoder=encoder))
    shared = published_config(config, encoder=encoder)
    shared = with_pinned_encoder(shared)
    write_json(output / files.CONFIG, to_dict(shared))
    for name_of_file in (files.DDT, files.AUTOENCODER):  # whose writer leaves them to the user
        if (path := output / name_of_file).exists():
            path.chmod((output / files.CONFIG).stat().st_mode)
    made = draw_samples(output, model) if samples and model.generator is not None else None
    card = Card(
        name=name,
        license=license or "unknown",
        step=step,
        config=shared,
        shift=model.shift,
        encoder=encoder,
        figures=figures(workdir, step),
        command=None if made is None else command(at(model, name), made, Parts(), "samples"),
    )
    write_text(output / files.CARD, card_text(card))
    files.write_manifest(
        output,
        files.Manifest(
            step=step,
            ddt=naming,
            encoder=encoder,
            class_names=model.class_names,
            version=__version__,
        ),
    )
    return output


def save_ddt(path: Path, ddt: DDT) -> str:
    """Writes a DiT^DH; returns whose names its tensors have, see `Manifest.ddt`."""
    try:
        tensors = export_ddt(ddt)
    except WeightsError as error:
        log.warning("%s has our own names, which only rae_dit reads: %s", path.name, error)
        files.save_leaves(path, parameters_of(ddt))
        return "own"
    save_tensors(path, tensors, {"ddt": ddt_facts(ddt.architecture)})
    return "reference"


def check_trained(config: Config) -> None:
    """Refuses a run whose encoder or decoder has random weights.

    Raises:
        ConfigError: it names none.
    """
    for section in ("encoder", "decoder"):
        named = getattr(config, section)
        trained = section == "decoder" and config.trained_network == "decoder"
        if not (named.pretrained or named.checkpoint or trained):
            expected = f"{section}.pretrained or .checkpoint: this run's has random weights"
            raise invalid_value(f"{section}.checkpoint", "", expected)


def check_directory(output: Path) -> None:
    """Refuses a directory that holds something else.

    Raises:
        WeightsError: it does.
    """
    allowed = {
        files.MANIFEST,
        files.CONFIG,
        files.DDT,
        files.AUTOENCODER,
        files.CARD,
        files.SAMPLES,
    }
    if output.exists() and not output.is_dir():
        raise WeightsError(f"--output: got the file {output}; expected a directory")
    others = sorted({path.name for path in output.iterdir()} - allowed) if output.exists() else []
    if others:
        raise WeightsError(
            f"--output: got {output}, which holds {', '.join(others[:5])}; expected a new directory"
        )


def publishes_encoder(config: Config, *, with_encoder: bool) -> bool:
    """Tells whether the encoder's weights are published: those trained here, or if asked for.

    Raises:
        ConfigError: it is on this disk only, and not asked for.
    """
    source = config.encoder.pretrained
    if with_encoder or not source:
        return True
    if place(source).exists():
        expected = "a hub id that others can read, or --with-encoder to publish its weights"
        raise invalid_value("encoder.pretrained", source, expected)
    return False


def with_pinned_encoder(config: Config) -> Config:
    """Returns the config with the commit of an encoder from the hub, if it is known here."""
    if not config.encoder.pretrained:
        return config
    encoder = dataclasses.replace(config.encoder, pretrained=pinned(config.encoder.pretrained))
    return dataclasses.replace(config, encoder=encoder)


def step_of(run: Path, workdir: Path) -> int:
    """Returns the step that a path names, or the newest.

    Raises:
        ConfigError: there is none.
    """
    step = int(run.name) if run.name.isdigit() else newest_step(workdir)
    if step is None:
        raise invalid_value("RUN", str(run), "a run that has saved a step")
    return step


def draw_samples(output: Path, model: Model) -> Settings:
    """Draws the card's picture with the sampler of the run's config; returns how."""
    sample, count = model.sample, min(CLASSES, len(model.class_names))
    guidance = sample.guidance if sample.cfg_scale != 1 else "none"
    settings = read_settings(
        model,
        classes=[f"0-{count - 1}"],
        number=count * COLUMNS,
        seed=0,
        method=sample.method,
        steps=sample.num_steps,
        guidance=guidance if guidance in model.guidance_kinds else "none",
        scale=sample.cfg_scale,
        interval=sample.cfg_interval,
        most=None,
    )
    images = to_float(np.concatenate(list(make_images(model, settings))))
    labels = np.asarray(settings.image_labels())
    sample_grid(output / files.SAMPLES, images, labels, model.class_names, columns=COLUMNS)
    return settings


def at(model: Model, name: str) -> Model:
    """Returns the model under the name by which others will find it."""
    return dataclasses.replace(model, source=name)


def figures(workdir: Path, step: int) -> dict[str, Any]:
    """Reads what was measured of this step: evaluation.json, reconstruction.json; {} if nothing."""
    found: dict[str, Any] = {}
    for name in ("evaluation.json", "reconstruction.json"):
        try:
            content = json.loads((workdir / name).read_text())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("checkpoint_step", step) == step:
            found[name] = content
        else:
            log.warning("%s is of another step than %d: left out of the card", name, step)
    return found
