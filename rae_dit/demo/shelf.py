"""Files that the page shows or gives away, each written once."""

import hashlib
import shutil
import threading
import time
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from rae_dit.demo.images import png
from rae_dit.storage.files import write_bytes

KEPT_SECONDS = 3600.0
LOOK_SECONDS = 300.0  # between two searches for old files


class Shelf:
    """A folder of files, by content: the same content is the same file, and never written again.

    The server would write an image given as an array anew each time it is shown, while a browser
    may be reading it.

    Args:
        folder: an empty one, which the caller removes.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = threading.Lock()
        self._looked = time.time()

    def keep(self, content: bytes, name: str) -> str:
        """Returns the path of a file with this content and name; old ones are removed."""
        place = self.folder / hashlib.sha256(content).hexdigest()[:20]
        path = place / name
        with self._lock:
            self._remove_old()
            if path.exists():
                place.touch()
            else:
                write_bytes(path, content)
        return str(path)

    def image(self, image: UInt8[np.ndarray, "H W 3"]) -> str:
        """Returns the path of the PNG file of an image."""
        return self.keep(png(image), "image.png")

    def _remove_old(self) -> None:
        now = time.time()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for place in self.folder.iterdir():
            if now - place.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(place, ignore_errors=True)
