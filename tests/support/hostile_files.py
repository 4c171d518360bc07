"""Files of weights made to crash a reader, to fill its memory or to keep it busy; all are small."""

import io
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

START = b"\x80\x02"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value: int) -> bytes:
    return b"\x8a\x0c" + value.to_bytes(12, "little", signed=True)


def integers(values: tuple) -> bytes:
    numbers = [
        b"G" + struct.pack(">d", value) if isinstance(value, float) else integer(value)
        for value in values
    ]
    return b"(" + b"".join(numbers) + b"t"


def tensor(shape: tuple, strides: tuple, length: int = 4) -> bytes:
    """A tensor of float32 at the start of storage 0."""
    pid = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    place = pid + integer(length) + b"tQ" + integer(0)
    return REBUILD + b"(" + place + integers(shape) + integers(strides) + b"\x89}tR"


def one_entry(name: str, value: bytes) -> bytes:
    return START + b"}" + text(name) + value + b"s."


PICKLES = {
    "tuples in tuples as a key": START + b"})" + b"\x85" * 300_000 + b"K\x01s.",
    "tuples in tuples": one_entry("w", b")" + b"\x85" * 300_000),
    "lists in lists": one_entry("w", b"]" + b"]" * 300_000 + b"a" * 300_000),
    "marks in marks": START + b"(" * 300_000 + b".",
    "millions of dicts": START + b"}" * 3_100_000 + b".",
    "memo far away": START + b"}r" + struct.pack("<I", 1 << 28) + b".",
    "memo farther away": START + b"}r" + struct.pack("<I", 0xFFFFFFF0) + b".",
    "long bytes": START + b"\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "long bytearray": START + b"\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "long string": START + b"\x8d" + struct.pack("<Q", 1 << 40) + b"x.",
    "long integer": START + b"\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x.",
    "long frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"}.",
    "itself": START + b"}q\x00" + text("model") + b"h\x00s.",
    "lists twice in each other": START
    + b"]q\x00"
    + b"".join(b"](" + b"h" + bytes([n]) * 1 + b"h" + bytes([n]) + b"eq" + bytes([n + 1])
               for n in range(90))
    + b"}" + text("model") + b"h\x5as.",
    "layer of a billion": one_entry("blocks.1000000000.x", tensor((4,), (1,))),
    "stride of nothing": one_entry("w", tensor((1 << 40,), (0,))),
    "sizes beside nothing": one_entry("w", tensor((0, 1 << 40), (1, 1))),
    "long strides": one_entry("w", tensor((2,), (1 << 62,))),
    "negative sizes": one_entry("w", tensor((-4,), (1,))),
    "sizes that are floats": one_entry("w", tensor((4.0,), (1,))),
    "more strides than sizes": one_entry("w", tensor((4,), (1, 1))),
    "storage beyond its entry": one_entry("w", tensor((1 << 40,), (1,), 1 << 40)),
    "state of a function": START + REBUILD + b"}" + text("x") + b"K\x01sb.",
    "state of a tensor": one_entry("w", tensor((4,), (1,)) + b"}" + text("shape") + b"K\x01sb"),
    "chosen hashes": START
    + b"}("
    + b"".join(b"\x8a\x0a" + (n * ((1 << 61) - 1)).to_bytes(10, "little") + b"N"
               for n in range(1, 60_000))
    + b"u.",
    "extension": START + b"\x82\x01.",
    "no end": START + b"}" * 100,
    "empty stack": START + b"s.",
    "code": START + b"cposix\nsystem\n" + b"(" + text("touch CODE_WAS_RUN") + b"tR.",
    "code by instance": b"(S'touch CODE_WAS_RUN'\nios\nsystem\n.",
    "code by state": START
    + b"cbuiltins\nobject\n)\x81}" + text("__setstate__") + b"cos\nsystem\nsb"
    + text("touch CODE_WAS_RUN") + b"b.",
    "code by attribute": b"\x80\x04" + text("os") + text("system") + b"\x93("
    + text("touch CODE_WAS_RUN") + b"tR.",
}  # fmt: skip


# Those that the older format, which reads its pickles from the file itself, could take otherwise.
IN_LEGACY = [
    name
    for name in PICKLES
    if name.startswith(("tuples", "long b", "long s", "memo", "code", "no"))
]


def torch_zip(pickled: bytes, storage: bytes = bytes(16), packed: tuple[str, ...] = ()) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (("data.pkl", pickled), ("data/0", storage)):
            method = zipfile.ZIP_DEFLATED if name in packed else zipfile.ZIP_STORED
            archive.writestr(f"a/{name}", content, method, 1)
    return file.getvalue()


def legacy(pickled: bytes) -> bytes:
    file = io.BytesIO()
    torch.save({}, file, _use_new_zipfile_serialization=False)
    before = file.getvalue()
    return before[: before.index(b"}q\x00.") - 2] + pickled


def write_hostile_files(directory: Path) -> Iterator[Path]:
    """Writes all of them, and yields their paths."""
    plain = one_entry("w", tensor((4,), (1,)))
    zeros = bytes(32 << 20)
    files = {f"{name}.zip.pt": torch_zip(pickled) for name, pickled in PICKLES.items()}
    files |= {f"{name}.legacy.pt": legacy(PICKLES[name]) for name in IN_LEGACY}
    files["packed storage.pt"] = torch_zip(plain, zeros, ("data/0",))
    files["packed pickle.pt"] = torch_zip(START + b"}" + b"0" * (32 << 20), packed=("data.pkl",))
    files["two entries.pt"] = torch_zip(plain).replace(b"a/data/0", b"a/data.pkl"[:8])
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }"
    for name, count in (("packed", 8 << 20), ("absurd", 1 << 60)):
        array = (header % count).ljust(127) + b"\n" + (zeros if name == "packed" else b"")
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("w.npy", array)
        files[f"{name}.npz"] = file.getvalue()
    deep = b'{"a":' * 100_000
    files["deep.safetensors"] = struct.pack("<Q", len(deep)) + deep
    files["long.safetensors"] = struct.pack("<Q", 1 << 62) + b"{}"
    files["deep.index.json"] = deep
    for name, content in files.items():
        (directory / name).write_bytes(content)
        yield directory / name
