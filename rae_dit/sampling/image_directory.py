"""The directory that --mode=sample fills: a PNG an image, and a manifest of what they are.

The manifest comes first, and each image appears under its name only when it is whole. So whatever
is found later was made with these settings, and an interrupted run needs to make the rest only.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rae_dit.closing import Closing
from rae_dit.config import ConfigError
from rae_dit.storage.files import replacing, write_json

log = logging.getLogger(__name__)

MANIFEST, GRID, NPZ = "manifest.json", "grid.png", "samples.npz"
_END_OF_PNG = b"IEND\xaeB`\x82"
_SHOWN = 60  # letters of a value in a message
_THREADS = 8  # compressing a PNG of 256 x 256 takes about 10 ms and lets others run


class ImageDirectory:
    """Numbered images of one kind, with their labels in their names."""

    def __init__(self, root: Path, labels: Sequence[int]) -> None:
        """Names the images; reads and writes nothing.

        Args:
            root: the directory.
            labels: class of each.
        """
        self.root = root
        self.labels = labels

    def path(self, number: int) -> Path:
        """Where an image is."""
        return self.root / f"{number:06d}_{self.labels[number]}.png"

    def check(self, settings: dict[str, Any]) -> None:
        """Checks that the directory can be written and holds images of these settings only.

        Nothing is made yet. `num_samples` may have grown: the images there are the first ones.

        Args:
            settings: JSON values; all of the manifest or a part.

        Raises:
            ConfigError: it cannot be written, holds images of other settings or unknown origin, or
                more images than asked for; another directory is suggested.
        """
        nearest = next(p for p in (self.root, *self.root.parents) if p.exists())
        if not nearest.is_dir():
            raise self._unwritable(f"{nearest} is a file")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise self._unwritable(f"no permission to write in {nearest}")
        before = self._read_manifest()
        if before is None and any(self.root.glob("*.png")):
            raise self._refusal("holds images without a manifest.json")
        if before is not None:
            self._compare(before, settings)

    def claim(self, manifest: dict[str, Any]) -> None:
        """Checks the directory and writes the manifest; clears away what a killed run left.

        Raises:
            ConfigError: as `check`.
        """
        self.check(manifest)
        try:
            if self._read_manifest() != manifest:
                for summary in (GRID, NPZ):
                    (self.root / summary).unlink(missing_ok=True)
                write_json(self.root / MANIFEST, manifest)
            for partial in self.root.glob(".*.*.*"):
                partial.unlink()
        except OSError as error:
            raise self._unwritable(str(error.strerror)) from error

    def missing(self) -> set[int]:
        """Numbers of the images that are not there, or not whole."""
        return {i for i in range(len(self.labels)) if not _is_whole(self.path(i))}

    def read(self, number: int) -> UInt8[np.ndarray, "H W 3"]:
        """An image that is there."""
        with Image.open(self.path(number)) as image:
            return np.asarray(image)

    def read_all(self) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """All images in order; a few are read ahead."""
        with ThreadPoolExecutor(_THREADS) as pool:
            ahead: list[Future[np.ndarray]] = []
            for number in range(len(self.labels)):
                ahead.append(pool.submit(self.read, number))
                if len(ahead) > 4 * _THREADS:
                    yield ahead.pop(0).result()
            for future in ahead:
                yield future.result()

    def write(self, number: int, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Writes one image whole or not at all."""
        with replacing(self.path(number)) as temporary:
            Image.fromarray(image).save(temporary, "PNG")

    def _read_manifest(self) -> dict[str, Any] | None:
        path = self.root / MANIFEST
        if not path.exists():
            return None
        try:
            return dict(json.loads(path.read_text()))
        except ValueError as error:
            raise self._refusal("holds a manifest.json that is no JSON") from error

    def _compare(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        for name, here in now.items():
            there = before.get(name)
            if name == "num_samples":
                if not isinstance(there, int) or there > here:
                    raise self._refusal(f"holds {there} images, more than the {here} asked for")
            elif there != here:
                words = f"{name} {str(there)[:_SHOWN]}, not {str(here)[:_SHOWN]}"
                raise self._refusal(f"holds images made with {words}")

    def _unwritable(self, problem: str) -> ConfigError:
        return ConfigError(
            f"sample.output_dir: got {str(self.root)!r} ({problem}), expected a directory "
            "that can be written"
        )

    def _refusal(self, problem: str) -> ConfigError:
        number = 2
        while (other := self.root.with_name(f"{self.root.name}-{number}")).exists():
            number += 1
        return ConfigError(
            f"sample.output_dir: {self.root} {problem}; empty it, or give another such as "
            f"--config.sample.output_dir={other}"
        )


class Writers(Closing):
    """Threads that write images while the next ones are computed, at most a batch behind."""

    def __init__(self, directory: ImageDirectory) -> None:
        """Starts no thread before there is an image."""
        self._directory = directory
        self._pool = ThreadPoolExecutor(_THREADS)
        self._writing: list[Future[None]] = []

    def write(self, numbers: Iterable[int], images: UInt8[np.ndarray, "b H W 3"]) -> None:
        """Waits for the images before, then starts writing these."""
        self.wait()
        jobs = zip(numbers, images, strict=True)
        self._writing = [self._pool.submit(self._directory.write, i, image) for i, image in jobs]

    def wait(self) -> None:
        """Returns when all images are on the disk; raises what a writer met."""
        for future in self._writing:
            future.result()
        self._writing = []

    def close(self) -> None:
        """Ends the threads after their last image; raises what a writer met."""
        self._pool.shutdown()
        self.wait()


def _is_whole(path: Path) -> bool:
    """Whether a PNG is there to its last byte."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_END_OF_PNG), 2)
            return file.read() == _END_OF_PNG
    except OSError:
        return False
