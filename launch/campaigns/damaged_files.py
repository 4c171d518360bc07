"""Small files of data of every kind, sound or damaged at random; see damaged_data.py."""

import io
import json
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

SIDE, RECORDS, CLASSES = 16, 12, 3
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "TGA", "AVIF")
SOURCES = ("folder", "parquet", "arrow", "tar")  # those of training data
KINDS = (*SOURCES, "samples", "reference", "names")


class Case(NamedTuple):
    """One damaged file: its kind and the seed of the damage."""

    kind: str
    seed: int


def encoded(number: int, kind: str) -> bytes:
    """Encodes a small picture of its own for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_sound(kind: str, root: Path) -> list[Path]:
    """Writes sound files of a kind into an empty directory; returns those to be damaged."""
    images = [encoded(n, "JPEG") for n in range(RECORDS)]
    match kind:
        case "folder":
            files = []
            for number, name in enumerate(FORMATS):
                folder = root / f"class-{number % CLASSES}"
                folder.mkdir(exist_ok=True)
                ending = "jp2" if name == "JPEG2000" else name.lower()
                files.append(folder / f"{number}.{ending}")
                files[-1].write_bytes(encoded(number, name))
            return files
        case "parquet" | "arrow":
            kinds = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            rows = pa.array([{"bytes": content, "path": "x.jpg"} for content in images], kinds)
            labels = pa.array([n % CLASSES for n in range(RECORDS)], pa.int64())
            names = {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
            table = pa.table({"image": rows, "label": labels}).replace_schema_metadata(
                {"huggingface": json.dumps({"info": {"features": names}})}
            )
            path = root / f"train-00000-of-00001.{kind}"
            if kind == "parquet":
                pyarrow.parquet.write_table(table, path, row_group_size=5)
            else:
                with (
                    pa.OSFile(str(path), "wb") as file,
                    pa.ipc.new_stream(file, table.schema) as out,
                ):
                    out.write_table(table, max_chunksize=5)
            return [path]
        case "tar":
            path = root / "train.tar"
            with tarfile.open(path, "w") as archive:
                for number, content in enumerate(images):
                    for name, data in ((f"{number}.jpg", content), (f"{number}.cls", b"1")):
                        info = tarfile.TarInfo(name)
                        info.size = len(data)
                        archive.addfile(info, io.BytesIO(data))
            return [path]
        case "samples":
            pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
            np.savez_compressed(root / "samples.npz", pixels, np.arange(9))
            return [root / "samples.npz"]
        case "reference":
            np.savez(root / "reference.npz", arr_0=np.zeros((3, 8, 8, 3), np.uint8), mu=np.ones(5))
            return [root / "reference.npz"]
        case "names":
            (root / "names.txt").write_text(repr({n: f"n{n:08d} name, {n}" for n in range(20)}))
            return [root / "names.txt"]
    raise ValueError(f"kind: got {kind!r}; expected one of {', '.join(KINDS)}")


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Changes a file at random, more often near its ends, where headers and footers are."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        size = len(data)
        if not size:
            break
        near = int(min(size, 2 ** rng.uniform(0, np.log2(size + 1))))
        place = min(size - 1, near if rng.random() < 0.5 else size - near)
        length = int(rng.integers(1, 1 + min(size - place, 64)))
        match int(rng.integers(8)):
            case 0:
                data[place] ^= 1 << int(rng.integers(8))
            case 1:
                data[place : place + length] = rng.bytes(length)
            case 2:
                data[place : place + length] = bytes(length)
            case 3:
                data[place : place + length] = b"\xff" * length
            case 4:
                del data[place : place + length]
            case 5:
                data[place:place] = data[place : place + length]
            case 6:
                del data[place:]
            case _:
                data[place:place] = rng.bytes(length)
    return bytes(data)


def make(case: Case, root: Path) -> Path:
    """Writes the files of a case, one of them damaged; returns the path to open."""
    rng = np.random.default_rng([case.seed, KINDS.index(case.kind)])
    files = write_sound(case.kind, root)
    chosen = files if case.kind == "folder" else files[:1]
    for file in chosen:
        file.write_bytes(damage(file.read_bytes(), rng))
    return root if case.kind in SOURCES else files[0]
