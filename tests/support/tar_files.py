"""Tar shards of encoded images, for the tests of their reader."""

import io
import tarfile

from support.image_files import encoded


def write_tar(path, members: list[tuple[str, bytes]], mode: str = "w") -> None:
    """Writes a tar file; a member without content is a directory."""
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            if content is None:
                info = tarfile.TarInfo(name)
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def record(number: int, key: str, kind: str = "jpg") -> list[tuple[str, bytes]]:
    """The two members of one record."""
    content = encoded(number, "PNG" if kind == "PNG" else "JPEG")
    return [(f"{key}.{kind}", content), (f"{key}.cls", f"{number % 3}\n".encode())]
