"""Representation autoencoders and their diffusion transformers (DiT^DH) in JAX.

A notebook needs four names: `open_images`, `load_rae`, `load_ddt` and `sample_latents`.
"""

import sys
from typing import TYPE_CHECKING, Any

from rae_dit.version import __version__ as __version__

if sys.version_info < (3, 11):  # noqa: UP036  (a clone runs without pip, which would tell)
    raise ImportError(f"Python: got {sys.version.split()[0]}; expected 3.11 or newer")

if TYPE_CHECKING:
    from rae_dit.api import load_ddt, load_rae
    from rae_dit.data.image_sequence import open_images
    from rae_dit.sampling.latents import sample_latents

__all__ = ["load_ddt", "load_rae", "open_images", "sample_latents"]


def __getattr__(name: str) -> Any:
    """Imports public names lazily, so that command-line errors appear before JAX is imported.

    Raises:
        AttributeError: if the package has no such name.
    """
    match name:
        case "load_ddt":
            from rae_dit.api import load_ddt

            return load_ddt
        case "load_rae":
            from rae_dit.api import load_rae

            return load_rae
        case "open_images":
            from rae_dit.data.image_sequence import open_images

            return open_images
        case "sample_latents":
            from rae_dit.sampling.latents import sample_latents

            return sample_latents
    raise AttributeError(f"rae_dit has no {name!r}; it offers {', '.join(__all__)}.")
