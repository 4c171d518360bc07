"""Records -> numpy batches `{"image": f32 [B,H,W,3] in [0,1], "label": i32 [B]}`.

`sources` says what a record is and holds the data that needs no download; `readers` opens image
files (`folder`, `huggingface`, `tfds`, `tar`), which `files` and `images` turn into pixels;
`transforms` holds the pixel arithmetic; `pipeline` orders, shuffles, shards and batches, and
`bad_images` counts what could not be decoded. Nothing here knows of jax.
"""

from rae_dit.data.batches import Batches
from rae_dit.data.files import Images, SourceError
from rae_dit.data.pipeline import (
    check_position,
    ordered_batches,
    position,
    train_batches,
)
from rae_dit.data.readers import open_images
from rae_dit.data.sources import Record, Source, digits, synthetic

__all__ = [
    "Batches",
    "Images",
    "Record",
    "Source",
    "SourceError",
    "check_position",
    "digits",
    "open_images",
    "ordered_batches",
    "position",
    "synthetic",
    "train_batches",
]
