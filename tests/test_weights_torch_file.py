"""Torch files without torch: what is read, written and refused."""

import gzip
import os
import pickle
import pickletools
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch

from rae_dit.api import load_ddt
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.lazy_tensor import LazyTensor, Storage
from rae_dit.weights.safe_pickle import Placeholder
from rae_dit.weights.torch_file import pickle_state_dict, read_torch_file, write_torch_file


def state_dict():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=generator)
    return {
        "float": base,
        "transposed": base.T,
        "slice": base[1:, 2:4],
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "double": base.double(),
        "long": torch.arange(5),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base[0]),
    }


def rewrite(source, target, change):
    """Copies a zip, passing each entry's bytes through `change(name, bytes)`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def test_reads_every_dtype_and_layout_that_torch_writes(tmp_path):
    torch.save({"step": 3, "nested": [state_dict()]}, tmp_path / "a.pt")
    content = read_torch_file(tmp_path / "a.pt")
    assert content["step"] == 3
    for name, expected in state_dict().items():
        tensor = content["nested"][0][name].read()
        assert tensor.shape == tuple(expected.shape)
        if name == "bfloat":
            assert tensor.dtype == ml_dtypes.bfloat16
        else:
            assert tensor.dtype == expected.detach().numpy().dtype
        np.testing.assert_array_equal(tensor.astype(np.float64), expected.detach().double())


def test_torch_opens_what_we_write_and_finds_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"matrix": (300, 7), "vector": (3,), "cube": (2, 1, 5), "scalar": (), "none": (0, 4)}
    tensors = {name: rng.standard_normal(shape).astype("f") for name, shape in shapes.items()}
    tensors["transposed"] = tensors["matrix"].T
    write_torch_file(tmp_path / "a.pt", tensors)
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    assert list(loaded) == list(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].is_contiguous()
        np.testing.assert_array_equal(loaded[name].numpy(), tensor)
        np.testing.assert_array_equal(read_torch_file(tmp_path / "a.pt")[name].read(), tensor)


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.ones(2), "extra": Attack()}, "attack.pt")
    content = read_torch_file("attack.pt")
    assert repr(content["extra"]) == "<posix.mkdir, not loaded>"
    assert content["extra"].arguments == ("attacked",)
    np.testing.assert_array_equal(content["weight"].read(), [1, 1])
    assert not os.path.exists("attacked")


@pytest.mark.parametrize(
    "name", ["builtins\neval", "torch\nload", "torch\n_utils", "collections\nabc", "os\nsystem"]
)
def test_no_name_is_looked_up(name, tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "a.pt")
    program = b"\x80\x02c" + name.encode() + b"\n."
    rewrite(
        *(tmp_path / "a.pt", tmp_path / "b.pt"),
        lambda entry, data: program if entry.endswith("data.pkl") else data,
    )
    found = read_torch_file(tmp_path / "b.pt")
    assert type(found) is Placeholder
    assert found.name == name.replace("\n", ".")


def test_newer_dtypes_are_read(tmp_path):
    """Torch gives them no storage class: a dtype stands beside untyped bytes."""
    float8 = torch.tensor([0.5, -448.0, 1.0]).to(torch.float8_e4m3fn)
    unsigned = torch.tensor([1, 65535], dtype=torch.uint16)
    torch.save({"float8": float8, "last": float8[1:], "unsigned": unsigned}, tmp_path / "a.pt")
    found = read_torch_file(tmp_path / "a.pt")
    assert found["float8"].read().dtype == ml_dtypes.float8_e4m3fn
    np.testing.assert_array_equal(found["float8"].read().astype(np.float32), [0.5, -448, 1])
    np.testing.assert_array_equal(found["last"].read().astype(np.float32), [-448, 1])
    np.testing.assert_array_equal(found["unsigned"].read(), [1, 65535])


def test_files_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weight": torch.arange(3.0)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    np.testing.assert_array_equal(read_torch_file(tmp_path / "a.pt")["weight"].read(), [0, 1, 2])


def test_a_git_lfs_pointer_is_named_as_such(tmp_path):
    (tmp_path / "a.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(WeightsError, match=r"a Git LFS pointer.*run 'git lfs pull'"):
        read_torch_file(tmp_path / "a.pt")


def test_truncated_and_foreign_files_are_refused(tmp_path):
    torch.save(state_dict(), tmp_path / "a.pt")
    data = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.pt").write_text("not weights")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme", "hello")
    for name in ("cut.pt", "text.pt"):
        with pytest.raises(WeightsError, match="not a whole torch or"):
            read_torch_file(tmp_path / name)
    with pytest.raises(WeightsError, match=r"not one that torch.save wrote"):
        read_torch_file(tmp_path / "other.pt")


def test_damaged_entries_are_refused(tmp_path):
    write_torch_file(tmp_path / "a.pt", {"weight": np.arange(8, dtype=np.float32)})
    data = (tmp_path / "a.pt").read_bytes()
    payload = np.arange(8, dtype=np.float32).tobytes()
    flipped = data.replace(payload, b"\xff" + payload[1:])
    (tmp_path / "flipped.pt").write_bytes(flipped)
    with pytest.raises(WeightsError, match="Bad CRC-32"):
        read_torch_file(tmp_path / "flipped.pt")["weight"].read()
    short = rewrite(
        *(tmp_path / "a.pt", tmp_path / "short.pt"),
        lambda entry, data: data[:-4] if entry.endswith("data/0") else data,
    )
    with pytest.raises(WeightsError, match="28 bytes and should have 8 numbers"):
        read_torch_file(short)["weight"].read()
    cut = rewrite(
        *(tmp_path / "a.pt", tmp_path / "pickle.pt"),
        lambda entry, data: data[:-9] if entry.endswith("data.pkl") else data,
    )
    with pytest.raises(WeightsError, match="is damaged"):
        read_torch_file(cut)
    big = rewrite(
        *(tmp_path / "a.pt", tmp_path / "big.pt"),
        lambda entry, data: b"big" if entry.endswith("byteorder") else data,
    )
    with pytest.raises(WeightsError, match="big-endian"):
        read_torch_file(big)


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "message"),
    [
        (5, (4,), (1,), "reaches outside its storage of 8 numbers"),
        (0, (3, 3), (4, 1), "reaches outside its storage of 8 numbers"),
        (4, (3,), (-1,), "reaches outside its storage of 8 numbers"),
        (0, (2,), (1 << 62,), "reaches outside its storage of 8 numbers"),
        (0, (1 << 40,), (0,), "is made of 8 numbers"),
        (0, (0, 1 << 40), (1, 1), "is made of 8 numbers"),
        (0, (2.0,), (1,), "not of integers"),
        (0, (2,), (1, 1), "1 sizes and 2 strides"),
        (0, (1,) * 40, (1,) * 40, "40 sizes"),
    ],
)
def test_an_impossible_tensor_is_refused(offset, shape, strides, message):
    storage = Storage("data/0", np.dtype(np.float32), 8)
    tensor = LazyTensor(storage, offset, shape, strides, lambda _: np.zeros(8, np.float32))
    with pytest.raises(WeightsError, match=message):
        tensor.read()


def test_strides_of_single_rows_are_not_used():
    storage = Storage("data/0", np.dtype(np.float32), 2)
    tensor = LazyTensor(storage, 0, (1, 2), (1 << 62, 1), lambda _: np.arange(2, dtype="f"))
    np.testing.assert_array_equal(tensor.read(), [[0, 1]])


def test_tensors_are_read_when_asked_for(tmp_path):
    write_torch_file(tmp_path / "a.pt", {"one": np.ones(3), "two": np.ones(3)})
    broken = rewrite(
        *(tmp_path / "a.pt", tmp_path / "b.pt"),
        lambda entry, data: b"" if entry.endswith("data/1") else data,
    )
    np.testing.assert_array_equal(read_torch_file(broken)["one"].read(), np.ones(3))


def test_the_pickle_is_one_that_pickle_itself_understands():
    program = pickle_state_dict({"weight": np.ones((2, 3), np.float32)})
    names = [
        argument for opcode, argument, _ in pickletools.genops(program) if opcode.name == "GLOBAL"
    ]
    assert set(names) == {
        "collections OrderedDict",
        "torch FloatStorage",
        "torch._utils _rebuild_tensor_v2",
    }
    assert program[:2] == pickle.PROTO + b"\x02"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\n<!DOCTYPE html><html><title>404</title>", "an HTML page"),
        (b"<HTML><body>", "an HTML page"),
        (gzip.compress(b"weights"), "compressed by gzip"),
        (b"\x93NUMPY\x01\x00", r"one array of numpy \(.npy\)"),
        (b"weights", "truncated, of another kind"),
    ],
    ids=["page", "short page", "gzip", "npy", "other"],
)
def test_what_is_no_file_of_weights_is_called_by_its_kind(tmp_path, content, kind):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"model.pt is not a whole torch .*: it is {kind}"):
        load_ddt(path)
