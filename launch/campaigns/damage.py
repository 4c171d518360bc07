"""Small files of weights of every kind, and ways to damage them, for damaged_weights.py."""

import argparse
import collections
import io
import json
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

# Lengths, sizes and places that a damaged number may have become.
EXTREMES = (0, 1, 0x7F, 0xFF, 0xFFFF, 1 << 28, (1 << 31) - 1, (1 << 32) - 1, 1 << 40, (1 << 62) + 1)
# Instructions with what they need, of harm or of none: code, lengths, places, other containers.
INSTRUCTIONS = (
    b"cposix\nsystem\n(X\x05\x00\x00\x00falsetR",
    b"cbuiltins\nexec\n(X\x06\x00\x00\x00import\x85R",
    b"(S'false'\nios\nsystem\n",
    b"\x8c\x02os\x8c\x06system\x93\x8c\x05false\x85R",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n",
    b"ccollections\nOrderedDict\n)R",
    b"r\xff\xff\xff\x0f",
    b"j\x00\x00\x00\x00",
    b"h\x00",
    b"\x8e" + struct.pack("<Q", 1 << 40),
    b"\x8b\xff\xff\xff\x7f",
    b"\x95" + struct.pack("<Q", 1 << 40),
    b"G" + struct.pack(">d", 2.5),
    b"\x8a\x09" + bytes(8) + b"\x01",
    *(
        bytes([byte])
        for byte in b"(.)0120NRQabdelostu]}\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x94"
    ),
)


def arrays() -> dict[str, np.ndarray]:
    """Returns the tensors that all files hold."""
    numbers = np.arange(24, dtype=np.float32)
    return {
        "blocks.0.weight": numbers.reshape(4, 6),
        "blocks.1.weight": numbers.reshape(2, 3, 4)[:, ::2].copy(),
        "bias": numbers[:5],
        "scalar": np.array(0.5, np.float32),
        "count": np.arange(3),
    }


def write_files(directory: Path) -> dict[str, Path]:
    """Writes one sound file of each kind of `KINDS`."""
    import torch  # noqa: TID251 - the writer of the files
    from safetensors.numpy import save_file

    tensors = {name: torch.tensor(array) for name, array in arrays().items()}
    extras = {
        "args": argparse.Namespace(model="DiT-XL/2", lr=1e-4, path=Path("runs")),
        "counts": collections.Counter("aab"),
        "random": np.random.RandomState(0).get_state(),
        "epoch": 3,
    }
    content = {"model": {name: -value for name, value in tensors.items()}, "ema": tensors, **extras}
    torch.save(content, directory / "zip.pt")
    torch.save(content, directory / "old.pt", _use_new_zipfile_serialization=False)
    np.savez(directory / "a.npz", **arrays())
    np.savez_compressed(directory / "packed.npz", **arrays())
    save_file(arrays(), directory / "a.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(arrays(), "a.safetensors")}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return {kind: directory / name for kind, (name, _) in KINDS.items()}


def damage_bytes(content: bytes, chance: random.Random) -> bytes:
    """Flips, overwrites, cuts, repeats or inserts bytes, in 1 to 4 places."""
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        place = chance.randrange(len(damaged) + 1)
        length = min(chance.choice((1, 1, 2, 4, 8, 64)), len(damaged) - place)
        match chance.choice(("bit", "bit", "byte", "number", "cut", "repeat", "insert", "end")):
            case "bit" if place < len(damaged):
                damaged[place] ^= 1 << chance.randrange(8)
            case "byte" if place < len(damaged):
                damaged[place] = chance.randrange(256)
            case "number":
                value = chance.choice(EXTREMES).to_bytes(8, "little")
                damaged[place : place + length] = value[:length]
            case "cut":
                del damaged[place : place + length]
            case "repeat":
                damaged[place:place] = damaged[place : place + length] * chance.choice((1, 2, 50))
            case "insert":
                damaged[place:place] = chance.randbytes(length)
            case "end" if chance.random() < 0.3:
                del damaged[place:]
    return bytes(damaged)


def damage_instructions(program: bytes, chance: random.Random) -> bytes:
    """Drops, doubles, swaps or inserts instructions of a pickle, or changes their numbers."""
    places = [place for _, _, place in pickletools.genops(program)]
    ends = [*places[1:], len(program)]
    parts = [program[start:end] for start, end in zip(places, ends, strict=True)]
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        place = chance.randrange(len(parts))
        match chance.choice(("drop", "double", "swap", "insert", "insert", "number")):
            case "drop" if len(parts) > 1:
                del parts[place]
            case "double":
                parts[place:place] = [parts[place]] * chance.choice((1, 2, 1000))
            case "swap":
                other = chance.randrange(len(parts))
                parts[place], parts[other] = parts[other], parts[place]
            case "insert":
                parts.insert(place, chance.choice(INSTRUCTIONS))
            case "number" if len(parts[place]) > 1:
                size = len(parts[place]) - 1
                value = chance.choice(EXTREMES).to_bytes(8, "little")
                parts[place] = parts[place][:1] + value[:size].ljust(size, b"\0")
    return b"".join(parts)


def damage_pickle_in_zip(content: bytes, chance: random.Random) -> bytes:
    """Damages the pickle of a torch zip, whose checksums are right afterwards."""
    how = chance.choice((damage_bytes, damage_instructions, damage_instructions))
    return rewritten(content, lambda name: name.endswith("data.pkl"), how, chance)


def damage_old_pickle(content: bytes, chance: random.Random) -> bytes:
    """Damages the fourth pickle of a file from before torch 1.6, the content."""
    file, ends = io.BytesIO(content), [0]
    for _ in range(4):
        *_, (_, _, last) = pickletools.genops(file)
        ends.append(last + 1)
    start, end = ends[3:5]
    return content[:start] + damage_instructions(content[start:end], chance) + content[end:]


def damage_header_in_zip(content: bytes, chance: random.Random) -> bytes:
    """Damages the start of an array of an .npz file, whose checksums are right afterwards."""
    one = chance.choice(zipfile.ZipFile(io.BytesIO(content)).namelist())

    def damage_start(array: bytes, chance: random.Random) -> bytes:
        return damage_bytes(array[:128], chance) + array[128:]

    return rewritten(content, lambda name: name == one, damage_start, chance)


def damage_directory(content: bytes, chance: random.Random) -> bytes:
    """Damages the directory at the end of a zip file."""
    start = content.index(b"PK\x01\x02")
    return content[:start] + damage_bytes(content[start:], chance)


def damage_header(content: bytes, chance: random.Random) -> bytes:
    """Damages the header of a safetensors file; half of the time its length stays right."""
    length = int.from_bytes(content[:8], "little")
    header = damage_bytes(content[8 : 8 + length], chance)
    stated = chance.choice((length, len(header)))
    return stated.to_bytes(8, "little") + header + content[8 + length :]


def rewritten(
    content: bytes,
    wanted: Callable[[str], bool],
    how: Callable[[bytes, random.Random], bytes],
    chance: random.Random,
) -> bytes:
    """Writes a zip again, with some entries damaged."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            entry = old.read(info)
            entry = how(entry, chance) if wanted(info.filename) else entry
            new.writestr(info.filename, entry, info.compress_type)
    return file.getvalue()


Damage = Callable[[bytes, random.Random], bytes]
# Kind of damage: the file, and how it is damaged.
KINDS: dict[str, tuple[str, Damage]] = {
    "torch zip, bytes": ("zip.pt", damage_bytes),
    "torch zip, directory": ("zip.pt", damage_directory),
    "torch zip, pickle": ("zip.pt", damage_pickle_in_zip),
    "older torch, bytes": ("old.pt", damage_bytes),
    "older torch, pickle": ("old.pt", damage_old_pickle),
    ".npz, bytes": ("a.npz", damage_bytes),
    ".npz, directory": ("packed.npz", damage_directory),
    ".npz, header of an array": ("packed.npz", damage_header_in_zip),
    "safetensors, bytes": ("a.safetensors", damage_bytes),
    "safetensors, header": ("a.safetensors", damage_header),
    "index": ("model.safetensors.index.json", damage_bytes),
}
