"""Listings of folders and tar files, kept between starts until what was listed changes.

Listing a million files takes minutes on network storage; asking whether a thousand directories or
shards have changed takes seconds. A directory's times change with every name that is added, removed
or renamed in it, a tar file's with every write. A kept listing counts only if all of them are as
they were; what changed in the seconds before it was listed is not kept, since another change in the
same tick of the file system's clock would not show.
"""

import dataclasses
import hashlib
import io
import json
import logging
import os
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rae_dit.data.files import Files, Listing, PackedStrings
from rae_dit.data.folder import Folder, sizes_of_some
from rae_dit.data.shards import find_shards
from rae_dit.data.tar import Tar
from rae_dit.storage.errors import StorageError
from rae_dit.storage.files import write_bytes
from rae_dit.storage.places import is_url, place

log = logging.getLogger(__name__)

SETTLED_SECONDS = 5.0  # ticks of clocks, and clocks of file servers that are slow
_FORMAT = 2

Kept = Folder | Tar


def kept_or_listed(
    directory: Path, path: str, settings: Sequence[Any], make: Callable[[], Files]
) -> Files:
    """Returns the listing that is kept in a directory, or makes one and keeps it.

    Args:
        directory: of the kept listings, made if needed.
        path: that is listed.
        settings: all else that the listing depends on, JSON values.
        make: lists.
    """
    if is_url(path) and settings[0] == "folder":
        return make()  # one listing, which is all that could be asked to see whether it changed
    whole = path if is_url(path) else os.path.abspath(os.path.expanduser(path))
    key = json.dumps([_FORMAT, whole, *settings])
    file = directory / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    if (kept := _read(file, key, path)) is not None:
        log.info("%s: unchanged since it was listed into %s", path, file)
        return kept
    begun = time.time()
    made = make()
    if not isinstance(made, Kept):
        return made
    try:
        stamps = _stamps(watched(made))
        # The version of an object is another one with every write, whatever the clocks say.
        if is_url(path) or stamps[:, :2].max() < (begun - SETTLED_SECONDS) * 1e9:
            write_bytes(file, _to_bytes(made, stamps, key))
    except (OSError, StorageError) as error:
        log.warning("the listing of %s cannot be kept (%s)", path, error)
    return made


def watched(files: Kept) -> list[bytes]:
    """Returns the paths whose stamps tell whether a listing would be the same."""
    if isinstance(files, Tar):
        return [os.fsencode(path) for path in files.shards]
    root = os.fsencode(files.root)
    return [root, *(os.path.join(root, below) for below in files.directories)]


def _stamps(paths: Sequence[bytes]) -> np.ndarray:
    """Returns int64 [paths, 4]: times of content and status in nanoseconds, size and inode."""
    if is_url(os.fsdecode(paths[0])):
        return _object_stamps([os.fsdecode(path) for path in paths])
    found = [os.stat(path) for path in paths]
    return np.array(
        [(s.st_mtime_ns, s.st_ctime_ns, s.st_size, s.st_ino % 2**63) for s in found], np.int64
    )


def _object_stamps(paths: Sequence[str]) -> np.ndarray:
    """Returns int64 [paths, 4] for objects in a bucket: hash of the version, and size."""
    with ThreadPoolExecutor(16) as pool:
        found: list[Any] = list(pool.map(lambda path: place(path).stat(), paths))
    versions = [hashlib.sha256(s.version.encode()).digest()[:7] for s in found]
    return np.array(
        [(int.from_bytes(v), 0, s.st_size, 0) for v, s in zip(versions, found, strict=True)],
        np.int64,
    )


def _to_bytes(files: Kept, stamps: np.ndarray, key: str) -> bytes:
    """Returns the .npz of a listing."""
    names, numbers = (
        (files.keys, files.table) if isinstance(files, Tar) else (files.files, files.first)
    )
    head: dict[str, Any] = {
        "key": key,
        "fingerprint": files.fingerprint,
        "listing": dataclasses.asdict(files.listing),
    }
    if isinstance(files, Tar):
        head |= {"shards": [str(shard) for shard in files.shards]}
    else:
        head |= {"root": str(files.root)}
        head |= {"directories": [os.fsdecode(path) for path in files.directories]}
    arrays: dict[str, Any] = {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)}
    arrays |= {"stamps": stamps, "numbers": numbers} | names.to_arrays()
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _read(file: Path, key: str, path: str) -> Kept | None:
    """Reads a listing; None if there is none, or it cannot be used, or something has changed."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            head = json.loads(arrays["head"].tobytes())
            names = PackedStrings.from_arrays(arrays["joined"], arrays["ends"])
            kept, stamps = _restored(head, names, arrays["numbers"]), arrays["stamps"]
        if head["key"] != key or not np.array_equal(_stamps(watched(kept)), stamps):
            return None
        if isinstance(kept, Tar) and find_shards(path, (".tar",)).files != [*kept.shards]:
            return None
    except FileNotFoundError:
        return None
    except (
        *(OSError, StorageError, EOFError, zipfile.BadZipFile),
        *(ValueError, LookupError, TypeError),
    ) as error:
        log.warning("%s cannot be used (%s); listing again", file, " ".join(str(error).split()))
        return None
    return kept


def _restored(head: dict[str, Any], names: PackedStrings, numbers: np.ndarray) -> Kept:
    """Makes the reader of a kept listing."""
    listing = Listing(**{name: _tuples(value) for name, value in head["listing"].items()})
    if "shards" in head:
        return Tar(
            shards=tuple(map(place, head["shards"])),
            keys=names,
            table=numbers,
            fingerprint=head["fingerprint"],
            listing=listing,
        )
    root, classes = place(head["root"]), listing.classes or ()
    sizes = sizes_of_some(root, classes, names, numbers)  # images may be written anew
    return Folder(
        root=root,
        classes=classes,
        files=names,
        first=numbers,
        fingerprint=head["fingerprint"],
        listing=dataclasses.replace(listing, sizes=sizes),
        directories=tuple(map(os.fsencode, head["directories"])),
    )


def _tuples(value: Any) -> Any:
    """Returns JSON's lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
