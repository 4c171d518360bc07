"""Every path and URL: local files, and objects in buckets behind the same methods.

The one room that knows URLs. All others get a path from `place` and use it as a `pathlib.Path`.
"""

import os

# Orbax, JAX and TFDS reach buckets through etils.epath, which takes tensorflow for it wherever that
# is installed. With this they all use fsspec instead, which shows one kind of error, can be pointed
# at an emulator, and does not load tensorflow. epath reads it once, so it is set on import.
os.environ.setdefault("EPATH_USE_TF", "0")
