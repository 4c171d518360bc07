"""One press of the button: images of one or two settings, appearing side by side."""

import dataclasses
import itertools
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from rae_dit.checkpoint.manager import CheckpointError
from rae_dit.config import ConfigError
from rae_dit.data.files import SourceError
from rae_dit.demo.catalog import Catalog
from rae_dit.demo.images import archive, enlarged, make_images, make_strip
from rae_dit.demo.model import Model
from rae_dit.demo.settings import Settings, command, read_settings
from rae_dit.evaluation.image_grid import write_mosaic
from rae_dit.failures import describe_error
from rae_dit.sampling.generate import NotFiniteError
from rae_dit.storage.errors import StorageError
from rae_dit.storage.places import place
from rae_dit.weights.errors import WeightsError

log = logging.getLogger(__name__)

OWN = (ConfigError, CheckpointError, WeightsError, SourceError, StorageError, NotFiniteError)
NAMES = ("A", "B")


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is chosen in one column of the page, as it was typed.

    Attributes:
        model: a name of the catalog.
        method: solver.
        steps: its points or updates.
        guidance: "none" or a kind.
        scale: of guidance.
        low: lowest time of guidance.
        high: highest time of guidance.
    """

    model: str
    method: str
    steps: Any
    guidance: str
    scale: Any
    low: Any
    high: Any


@dataclasses.dataclass
class View:
    """What the page shows.

    Attributes:
        message: one line.
        images: of each column, as far as they are made, u8 at the model's size.
        labels: class of each image of a column.
        names: of the classes of each column.
        strips: the way from noise, of each column; None until it is made.
        commands: of each column.
        archive: zip file of all images; None until they are made.
    """

    message: str
    images: list[list[np.ndarray]] = dataclasses.field(default_factory=list)
    labels: list[list[int]] = dataclasses.field(default_factory=list)
    names: list[tuple[str, ...]] = dataclasses.field(default_factory=list)
    strips: list[np.ndarray | None] = dataclasses.field(default_factory=list)
    commands: list[str] = dataclasses.field(default_factory=list)
    archive: bytes | None = None

    def gallery(self, column: int) -> list[tuple[np.ndarray, str]]:
        """Returns the images of a column with their classes, at the size at which they are shown.

        A column that is not used has none.
        """
        if column >= len(self.images):
            return []
        labels, names = self.labels[column], self.names[column]
        return [
            (enlarged(image), names[label])
            for image, label in zip(self.images[column], labels, strict=False)
        ]


def draw(
    catalog: Catalog, choices: Sequence[Choice], *, classes: Sequence[str], number: Any, seed: Any
) -> Iterator[View]:
    """Yields what the page shows, again and again until all is made; a mistake is a message."""
    view = View("loading")
    try:
        yield view
        yield from steps(view, catalog, choices, classes=classes, number=number, seed=seed)
    except Exception as error:
        view.message = message_of(error)
        yield view


def steps(
    view: View,
    catalog: Catalog,
    choices: Sequence[Choice],
    *,
    classes: Sequence[str],
    number: Any,
    seed: Any,
) -> Iterator[View]:
    """Yields the view after each batch; raises what `draw` turns into a message."""
    columns = []
    for choice in choices:
        model = catalog.load(choice.model)
        settings = read_settings(
            model,
            classes=classes,
            number=number,
            seed=seed,
            method=choice.method,
            steps=choice.steps,
            guidance=choice.guidance,
            scale=choice.scale,
            interval=(choice.low, choice.high),
        )
        columns.append((model, settings))
    view.images = [[] for _ in columns]
    view.labels = [settings.image_labels() for _, settings in columns]
    view.names = [model.class_names for model, _ in columns]
    view.strips = [None] * len(columns)
    folders = ["images"] if len(columns) == 1 else [f"images_{name}" for name in NAMES]
    view.commands = [
        command(model, settings, catalog.parts, folder)
        for (model, settings), folder in zip(columns, folders, strict=True)
    ]
    view.message = "first images of new settings: compiling"
    yield view
    started = time.monotonic()
    parts = [make_images(model, settings) for model, settings in columns]
    for batches in itertools.zip_longest(*parts):
        for images, batch in zip(view.images, batches, strict=True):
            images += [] if batch is None else list(batch)
        view.message = progress(view)
        yield view
    took = time.monotonic() - started
    for column, (model, settings) in enumerate(columns):
        view.message = f"{progress(view)} in {took:.1f} s; the way from noise follows"
        yield view
        view.strips[column] = strip_picture(model, settings)
    inside = [""] if len(columns) == 1 else list(NAMES)
    view.archive = archive(
        {
            folder: (view.images[i], view.labels[i], view.commands[i])
            for i, folder in enumerate(inside)
        }
    )
    view.message = f"{progress(view)} in {took:.1f} s"
    yield view


def progress(view: View) -> str:
    """Says how many images there are."""
    total = len(view.labels[0])
    counts = [len(images) for images in view.images]
    if len(set(counts)) == 1:
        return f"{counts[0]} of {total} images"
    return ", ".join(f"{name} {n} of {total}" for name, n in zip(NAMES, counts, strict=False))


def strip_picture(model: Model, settings: Settings) -> np.ndarray:
    """Draws the way of the first image: what the model sees in each state, and the state."""
    strip = make_strip(model, settings)
    rows = [[enlarged(image) for image in row] for row in (strip.estimates, strip.states)]
    names = ["clean image\nseen in it", "state,\ndecoded"]
    with tempfile.TemporaryDirectory() as folder:
        path = place(folder) / "strip.png"
        write_mosaic(path, rows, names, captions=[f"t = {t:.2f}" for t in strip.times])
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))


def message_of(error: Exception) -> str:
    """Says an error in one line; the traceback of what is none of ours goes to the log."""
    if isinstance(error, OWN):
        return " ".join(str(error).split())
    log.error("the demo page met an error that is not the visitor's", exc_info=error)
    return describe_error(error)
