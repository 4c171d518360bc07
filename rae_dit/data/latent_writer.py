"""Writer of the shards that `latents` reads."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rae_dit.data.latents import LABEL, SCALE
from rae_dit.storage.files import replacing

# Compressed, bfloat16 takes 22 % less disk and is read at a quarter of the speed.
OPTIONS = "group_size:1,uncompressed"


def to_record(label: int, latent: np.ndarray, scale: np.ndarray | None) -> bytes:
    """Returns the bytes of a record.

    Args:
        label: of the image.
        latent: [h,w,D] in the dtype to store.
        scale: float32 [D] of "fp8"; None for the others.
    """
    scales = b"" if scale is None else scale.astype(SCALE).tobytes()
    return np.asarray(label, LABEL).tobytes() + scales + latent.tobytes()


def write_shard(path: Path, records: Iterable[bytes]) -> None:
    """Writes a shard, atomically."""
    from array_record.python.array_record_module import ArrayRecordWriter

    with replacing(path) as temporary:
        writer = ArrayRecordWriter(str(temporary), OPTIONS)
        try:
            for record in records:
                writer.write(record)
        finally:
            writer.close()
