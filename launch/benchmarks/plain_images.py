"""Helpers of bench_loader.py: JPEG files, a plain torch data set of them, CPU time."""

import io
import multiprocessing
import os
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 4
WIDTH, HEIGHT = 500, 375  # the commonest size in ImageNet
QUALITY = 90  # gives 110 kB a file, ImageNet's mean


def picture(number: int) -> Image.Image:
    """Makes noise with a photograph's spectrum (amplitude 1/f) and correlated colors."""
    rng = np.random.default_rng(number)
    rows, columns = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]
    amplitude = 1 / np.maximum(np.hypot(rows, columns), 1 / WIDTH)
    phases = np.exp(2j * np.pi * rng.random((3, *amplitude.shape)))
    planes = np.fft.irfft2(amplitude * phases, s=(HEIGHT, WIDTH))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    mix = np.array([[1, 0.3, 0.1], [1, 0, 0], [1, -0.1, -0.3]])
    pixels = 120 + 45 * np.einsum("ck,khw->hwc", mix, planes)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_jpegs(folder: Path, count: int, names: int = 1) -> None:
    """Writes FOLDER/CLASS/NUMBER_NAME.jpg: so many pictures, each under so many names."""
    for number in range(count):
        path = folder / f"class_{number % CLASSES}" / f"{number:05d}_00.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        picture(number).save(buffer, "JPEG", quality=QUALITY)
        path.write_bytes(buffer.getvalue())
        for name in range(1, names):
            path.with_name(f"{number:05d}_{name:02d}.jpg").hardlink_to(path)


def plain_crop(image: Image.Image, size: int) -> np.ndarray:
    """Crops the center as ADM does, written plainly: uint8 [size,size,3]."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    shape = round(image.width * scale), round(image.height * scale)
    pixels = np.asarray(image.resize(shape, Image.Resampling.BICUBIC))
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size].copy()  # PIL's own cannot be written to


class PlainFolder:
    """A map-style torch data set of image files; it needs no base class."""

    def __init__(self, folder: Path, size: int) -> None:
        """Lists the files, in the order of ours."""
        self.paths, self.size = sorted(folder.glob("*/*.jpg")), size

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Image uint8 [size,size,3], and label."""
        path = self.paths[index]
        with path.open("rb") as file:
            image = Image.open(file).convert("RGB")
        return plain_crop(image, self.size), int(path.parent.name[-1])


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process and its workers so far."""
    ticks = 0
    for number in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
