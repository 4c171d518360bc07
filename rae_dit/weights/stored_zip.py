"""Reader of zip files whose entries are stored as they are, as torch.save writes them.

What an entry claims is checked before anything is read: it is not compressed or encrypted, and lies
inside the file. So nothing is ever larger than the file.
"""

import io
import threading
import zipfile
import zlib
from collections.abc import KeysView
from pathlib import Path
from typing import BinaryIO

from rae_dit.weights.errors import DAMAGE, WeightsError, brief, reading

LOCAL_HEADER = 30  # bytes, before name and extra field
LOCAL_SIGNATURE = b"PK\x03\x04"
ENCRYPTED = 0x1


# First bytes -> what a file is that carries the name of one of weights
KINDS = {
    b"<!doctype html": "an HTML page, as a server gives in place of a file",
    b"<html": "an HTML page, as a server gives in place of a file",
    b"\x1f\x8b": "compressed by gzip",
    b"\x93numpy": "one array of numpy (.npy)",
}


def kind_of(file: BinaryIO) -> str:
    """Says what a file that is no zip file is, by its first bytes."""
    try:
        file.seek(0)
        start = file.read(64).lstrip().lower()
    except OSError:
        start = b""
    for beginning, kind in KINDS.items():
        if start.startswith(beginning):
            return kind
    return "truncated, of another kind, or older than torch 1.6"


class StoredZip:
    """A zip file, kept open.

    Args:
        file: the file.
        path: its path, for messages.

    Raises:
        WeightsError: it is no zip file, or not whole.
    """

    def __init__(self, file: BinaryIO, path: Path):
        self.file = file
        self.path = path
        try:
            infos = zipfile.ZipFile(file).infolist()
        except (*DAMAGE, OSError) as error:
            raise WeightsError(
                f"{path} is not a whole torch or .npz file ({brief(error)}): it is "
                f"{kind_of(file)}. Fetch it again, or re-save it with today's torch."
            ) from error
        self.entries = {info.filename: info for info in infos}
        if len(self.entries) != len(infos):
            raise WeightsError(f"{path} is damaged: it has two entries of one name.")
        self.length = file.seek(0, io.SEEK_END)
        self.lock = threading.Lock()

    def names(self) -> KeysView[str]:
        """Returns the names of all entries."""
        return self.entries.keys()

    def size(self, name: str) -> int:
        """Returns the number of bytes of an entry.

        Raises:
            WeightsError: there is no such entry, or it is not stored as it is.
        """
        if name not in self.entries:
            raise WeightsError(f"{self.path} is damaged: it has no entry {name!r}.")
        info = self.entries[name]
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & ENCRYPTED:
            raise WeightsError(
                f"{self.path}: entry {name!r} is compressed or encrypted, which torch.save never "
                "does; save it again with torch."
            )
        if info.file_size != info.compress_size or info.file_size > self.length:
            raise WeightsError(f"{self.path} is damaged: entry {name!r} has two sizes.")
        return info.file_size

    def read(self, name: str) -> bytes:
        """Reads an entry.

        Raises:
            WeightsError: it is damaged; see `size`.
        """
        size, info = self.size(name), self.entries[name]
        with reading(self.path), self.lock:
            self.file.seek(info.header_offset)
            header = self.file.read(LOCAL_HEADER)
            lengths = header[26:28], header[28:30]  # of name and extra field
            self.file.seek(sum(int.from_bytes(length, "little") for length in lengths), 1)
            content = self.file.read(size)
        if header[:4] != LOCAL_SIGNATURE or len(content) != size:
            raise WeightsError(f"{self.path} is damaged: entry {name!r} is not where it should be.")
        # Torch leaves out the checksum if asked to (torch.serialization.set_crc32_options).
        if info.CRC and zlib.crc32(content) != info.CRC:
            raise WeightsError(f"{self.path} is damaged: Bad CRC-32 of entry {name!r}.")
        return content
