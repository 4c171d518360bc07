"""Output directory of --mode=sample: one PNG an image and a manifest of their settings.

The manifest is written first, and an image gets its name only when it is complete. Every image
that is found later was therefore made with the manifest's settings, and an interrupted run only
makes the missing ones.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rae_dit.config import ConfigError
from rae_dit.provenance import Provenance
from rae_dit.storage.files import replacing, write_json
from rae_dit.storage.places import is_url

MANIFEST, GRID, NPZ = "manifest.json", "grid.png", "samples.npz"
_END_OF_PNG = b"IEND\xaeB`\x82"
_THREADS = 8  # compressing a PNG of 256 x 256 takes about 10 ms and releases the GIL


class ImageDirectory:
    """Numbered images made with the same settings, with their labels in their file names."""

    def __init__(self, root: Path, labels: Sequence[int]) -> None:
        """Stores path and labels; reads and writes nothing.

        Args:
            root: the directory; need not exist.
            labels: class of each image.
        """
        self.root = root
        self.labels = labels

    def path(self, number: int) -> Path:
        """Returns the path of an image: NUMBER_LABEL.png."""
        return self.root / f"{number:06d}_{self.labels[number]}.png"

    def check(self, settings: Provenance) -> None:
        """Checks that the directory is writable and holds no images of other settings.

        Nothing is written. `num_samples` may have grown: the images there are the first ones.

        Args:
            settings: what the images depend on; all of the manifest or a part.

        Raises:
            ConfigError: it is not writable, holds images of other settings or without a manifest,
                or more images than asked for; the message suggests another directory.
        """
        if not is_url(self.root):
            self._check_disk()
        before = self._read_manifest()
        if before is None and any(self.root.glob("*.png")):
            raise self._refusal("holds images without a manifest.json")
        if before is not None:
            self._compare(before, settings)

    def _check_disk(self) -> None:
        nearest = next(p for p in (self.root, *self.root.parents) if p.exists())
        if not nearest.is_dir():
            raise self._unwritable(f"{nearest} is a file")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise self._unwritable(f"no permission to write in {nearest}")

    def claim(self, manifest: Provenance) -> None:
        """Checks the directory, writes the manifest and deletes temporary files of a killed run.

        Raises:
            ConfigError: see `check`.
        """
        self.check(manifest)
        try:
            if self._read_manifest() != manifest.values:
                for summary in (GRID, NPZ):
                    (self.root / summary).unlink(missing_ok=True)
                write_json(self.root / MANIFEST, manifest.values)
            if not is_url(self.root):  # where an image is there as a whole, or not
                for partial in self.root.glob(".*.*.*"):
                    partial.unlink()
        except OSError as error:
            raise self._unwritable(str(error.strerror)) from error

    def missing(self) -> set[int]:
        """Returns the numbers of the images that are missing or incomplete."""
        numbers = range(len(self.labels))
        if is_url(self.root):
            there = {path.name for path in self.root.glob("*.png")}
            return {i for i in numbers if self.path(i).name not in there}
        return {i for i in numbers if not _is_complete(self.path(i))}

    def wait_for(self, numbers: Iterable[int], seconds: float) -> None:
        """Waits until images that other processes have written are seen here.

        Raises:
            ConfigError: some are not, after so many seconds.
        """
        left, last = set(numbers), time.monotonic() + seconds
        while left := {number for number in left if not _is_complete(self.path(number))}:
            if time.monotonic() > last:
                raise ConfigError(
                    f"sample.output_dir: got {str(self.root)!r}, where {len(left)} images that "
                    f"other processes wrote are not seen after {seconds:g} s; expected storage "
                    "that all hosts share"
                )
            list(self.root.iterdir())  # NFS then asks for what it has taken for absent
            time.sleep(0.2)

    def read(self, number: int) -> UInt8[np.ndarray, "H W 3"]:
        """Reads one image."""
        with self.path(number).open("rb") as file, Image.open(file) as image:
            return np.asarray(image)

    def read_all(self) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Yields all images in order; threads read a few ahead."""
        with ThreadPoolExecutor(_THREADS) as pool:
            ahead: list[Future[np.ndarray]] = []
            for number in range(len(self.labels)):
                ahead.append(pool.submit(self.read, number))
                if len(ahead) > 4 * _THREADS:
                    yield ahead.pop(0).result()
            for future in ahead:
                yield future.result()

    def write(self, number: int, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Writes one image, atomically."""
        with replacing(self.path(number)) as temporary:
            Image.fromarray(image).save(temporary, "PNG")

    def _read_manifest(self) -> dict[str, Any] | None:
        path = self.root / MANIFEST
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text())
        except (ValueError, RecursionError, OSError) as error:
            raise self._refusal("holds a manifest.json that is not valid JSON") from error
        if not isinstance(found, dict):
            raise self._refusal("holds a manifest.json that is no dictionary")
        return found

    def _compare(self, before: dict[str, Any], now: Provenance) -> None:
        there, here = before.get("num_samples"), now.values["num_samples"]
        if not isinstance(there, int) or there > here:
            raise self._refusal(f"holds {there} images, more than the {here} asked for")
        if changes := now.without("num_samples").changes(before, partly=True):
            words = ", ".join(map(str, changes))
            raise self._refusal(f"holds images of other settings ({words})")

    def _unwritable(self, problem: str) -> ConfigError:
        return ConfigError(
            f"sample.output_dir: got {str(self.root)!r} ({problem}); expected a writable directory"
        )

    def _refusal(self, problem: str) -> ConfigError:
        number = 2
        while (other := self.root.with_name(f"{self.root.name}-{number}")).exists():
            number += 1
        return ConfigError(
            f"sample.output_dir: {self.root} {problem}; empty it, or give another such as "
            f"--config.sample.output_dir={other}"
        )


class ImageWriter(contextlib.AbstractContextManager["ImageWriter"]):
    """Writes images in threads while the next ones are computed, at most one batch behind."""

    def __init__(self, directory: ImageDirectory) -> None:
        """Starts no thread before the first image."""
        self._directory = directory
        self._pool = ThreadPoolExecutor(_THREADS)
        self._writing: list[Future[None]] = []

    def write(self, numbers: Iterable[int], images: UInt8[np.ndarray, "b H W 3"]) -> None:
        """Waits for the previous images, then starts to write these."""
        self.wait()
        jobs = zip(numbers, images, strict=True)
        self._writing = [self._pool.submit(self._directory.write, i, image) for i, image in jobs]

    def wait(self) -> None:
        """Waits until all images are written; raises the first error of a thread."""
        for future in self._writing:
            future.result()
        self._writing = []

    def __exit__(self, *exception: object) -> None:
        """Waits until all images are written and ends the threads; raises a thread's error."""
        self._pool.shutdown()
        self.wait()


def _is_complete(path: Path) -> bool:
    """Tells whether a PNG exists and ends as a PNG does."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_END_OF_PNG), 2)
            return file.read() == _END_OF_PNG
    except OSError:
        return False
