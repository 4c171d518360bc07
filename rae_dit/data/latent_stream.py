"""Streams of cached latents, with the draws that `pipeline` makes for images.

So a run on cached latents sees, at each step, the images and mirror images of the run on pixels.
"""

from dataclasses import dataclass

import grain
import numpy as np

from rae_dit.data.latents import StoredLatents
from rae_dit.data.transforms import FLIP_CHANCE, Example


def random_stream(
    source: StoredLatents, numbers: grain.MapDataset, *, flip: bool
) -> grain.MapDataset:
    """Reads the latents of numbered images, half of them mirrored if `flip`.

    Raises:
        ValueError: to flip, but no mirror images were encoded.
    """
    if not flip:
        return numbers.map(source.read)
    if not source.manifest.mirrored:
        raise ValueError("flip: got True; expected False for latents without mirror images")
    # One step before the random one, as for images: their number decides its seed.
    return numbers.map(int).random_map(ReadEither(source))


def ordered_stream(source: StoredLatents, *, real: int, padded: int) -> grain.MapDataset:
    """Reads latents in order, with weight 1; then zeros with weight 0 up to `padded`."""
    return grain.MapDataset.range(padded).map(ReadWeighted(source, real))


@dataclass(frozen=True, eq=False)
class ReadEither:
    """Function from the number of an image to its latent or that of its mirror image."""

    source: StoredLatents

    def __call__(self, index: int, rng: np.random.Generator) -> Example:
        """Reads the mirror image where `transforms.random_flip` would mirror."""
        return self.source.read(index, mirrored=bool(rng.random() < FLIP_CHANCE))


@dataclass(frozen=True, eq=False)
class ReadWeighted:
    """Function from a number to a weighted latent; zeros from `real` on."""

    source: StoredLatents
    real: int

    def __call__(self, index: int) -> Example:
        """Reads a latent, not mirrored."""
        example = self.source.read(min(index, self.real - 1))
        if index < self.real:
            return example | {"weight": np.float32(1)}
        zeros: Example = {name: np.zeros_like(value) for name, value in example.items()}
        return zeros | {"weight": np.float32(0)}
