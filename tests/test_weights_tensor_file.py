"""Files of tensors of every kind: what they hold, and one line where they are damaged."""

import json
import struct
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.tensor_file import open_tensors, save_tensors


def saved(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def values(path):
    return {name: float(tensor[0]) for name, tensor in open_tensors(path).items()}


def one(value):
    return torch.full((2,), float(value))


def test_a_plain_state_dict_is_taken_as_it_is(tmp_path):
    path = saved(tmp_path, OrderedDict({"blocks.0.weight": one(1), "pos_embed": one(2)}))
    assert values(path) == {"blocks.0.weight": 1, "pos_embed": 2}


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {}, {"model": {"w": 1}}])
def test_a_file_without_state_dict_is_refused(tmp_path, content):
    with pytest.raises(WeightsError, match=r"a\.pt: got .*; expected a state dict of"):
        open_tensors(saved(tmp_path, content))


def test_safetensors_are_told_by_content_and_joined_from_shards(tmp_path):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "1.pt")  # the name does not matter
    save_file({"b": np.zeros(2, np.float32)}, tmp_path / "2.safetensors")
    assert values(tmp_path / "1.pt") == {"a": 1}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.pt", "b": "2.safetensors"}}))
    assert values(index) == {"a": 1, "b": 0}
    (tmp_path / "2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"2\.safetensors is missing; fetch all"):
        open_tensors(index)


def test_a_truncated_safetensors_file_is_refused(tmp_path):
    save_file({"a": np.ones(200, np.float32)}, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[:-8])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        open_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_saved_is_read_back_bit_for_bit(tmp_path, suffix):
    tensors = {"w": np.random.default_rng(0).standard_normal((3, 5)).astype("f").T}
    save_tensors(tmp_path / f"a{suffix}", tensors)
    np.testing.assert_array_equal(open_tensors(tmp_path / f"a{suffix}")["w"], tensors["w"])


def test_other_suffixes_are_not_written(tmp_path):
    with pytest.raises(WeightsError, match=r"\.npz"):
        save_tensors(tmp_path / "a.npz", {})


def write_safetensors(path, header, content):
    """Writes a file by hand: the format is a length, a header and the numbers."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
    return path


def entry(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_every_dtype_of_safetensors_is_read(tmp_path):
    float8 = np.array([[0.5, -448, 1, 0]], ml_dtypes.float8_e4m3fn)
    other8 = np.array([-0.25, 57344], ml_dtypes.float8_e5m2)
    header = {
        "__metadata__": {"format": "pt"},
        "a": entry("F8_E4M3", [1, 4], 0, 4),
        "b": entry("F8_E5M2", [2], 4, 6),
        "c": entry("F32", [], 6, 10),
        "d": entry("F32", [0, 3], 10, 10),
    }
    content = float8.tobytes() + other8.tobytes() + np.float32(3).tobytes()
    tensors = open_tensors(write_safetensors(tmp_path / "a", header, content))
    assert list(tensors) == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(tensors["a"].astype("f"), [[0.5, -448, 1, 0]])
    np.testing.assert_array_equal(tensors["b"].astype("f"), [-0.25, 57344])
    assert tensors["c"] == 3
    assert tensors["d"].shape == (0, 3)


def test_dtypes_that_are_not_read_leave_the_others(tmp_path):
    header = {"odd": entry("F4", [4], 0, 2), "w": entry("I16", [1], 2, 4)}
    tensors = open_tensors(write_safetensors(tmp_path / "a", header, bytes(4)))
    assert tensors["w"] == [0]
    with pytest.raises(WeightsError, match=r"'odd' is of 1 dimensions of F4, which is not read"):
        tensors["odd"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "got JSONDecodeError .*; expected JSON"),
        ("[]", "got a list; expected a JSON object"),
        ("{}", "weight_map: got None"),
        ('{"weight_map": {}}', "weight_map: got {}"),
        ('{"weight_map": {"a": 3}}', "a: got 3; expected a file beside it"),
        ('{"weight_map": {"a": "../1.safetensors"}}', r"got '\.\./1\.safetensors'"),
        ('{"weight_map": {"b": "1.safetensors"}}', "does not hold 'b', as the index says"),
        ("[" * 100000, "RecursionError"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
    ],
)
def test_a_damaged_index_is_one_line(tmp_path, content, message):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "1.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(WeightsError, match=message) as caught:
        open_tensors(tmp_path / "model.safetensors.index.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_in_both_orders_of_numbers_packed_or_not(tmp_path, save):
    arrays = {
        "rows": np.arange(6.0).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
        "scalar": np.float16(0.5),
        "big": np.arange(3, dtype=">i4"),
    }
    save(tmp_path / "a.npz", **arrays)
    tensors = open_tensors(tmp_path / "a.npz")
    assert list(tensors) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name], array)


def test_npz_of_objects_and_text_is_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", o=np.array([{}], object), t=np.array(["x"]), w=np.ones(1))
    tensors = open_tensors(tmp_path / "a.npz")
    assert tensors["w"] == 1
    for name in ("o", "t"):
        with pytest.raises(WeightsError, match=rf"'{name}.npy' is of .*; expected numbers"):
            tensors[name]


def test_npz_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", w=np.zeros(1 << 20))
    with pytest.raises(WeightsError, match=r"has [\d,]+ bytes and unpacks to 8,388,\d+; expected"):
        open_tensors(tmp_path / "a.npz")


def test_npz_whose_header_says_another_shape_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        content = archive.read("w.npy").replace(b"(3,)", b"(9,)")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("w.npy", content)
    with pytest.raises(WeightsError, match=r"'w.npy' has 152 bytes, which shape \(9,\) is not"):
        open_tensors(tmp_path / "b.npz")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.npz", "a.bin", "a.index.json"])
def test_git_lfs_pointers_are_named_as_such(tmp_path, name):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (tmp_path / name).write_text(text)
    with pytest.raises(WeightsError, match=rf"{name}: got a Git LFS pointer.*'git lfs pull'"):
        open_tensors(tmp_path / name)


def test_a_directory_is_named_as_what_it_is(tmp_path):
    (tmp_path / "__0_0.distcp").touch()  # and no .metadata
    with pytest.raises(WeightsError, match=r"without its .metadata; .*; expected a file"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("name", ["blocks.1000000000.w", "a\nb", "x" * 2000])
def test_names_of_no_network_are_refused(tmp_path, name):
    save_file({name: np.ones(2, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="got a tensor named") as caught:
        open_tensors(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK", b"{", bytes(100)])
def test_files_of_nothing_are_one_line(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.pt"):
        open_tensors(tmp_path / "a.pt")


def test_bugs_disks_and_memory_are_not_called_damage(tmp_path, monkeypatch):
    path = saved(tmp_path, {"w": torch.zeros(1)})

    def opening(error):
        def fail(*arguments):
            raise error

        monkeypatch.setattr("rae_dit.weights.tensor_pickle.check_containers", fail)
        return open_tensors(path)

    for bug in (TypeError("of ours"), KeyError("of ours"), AttributeError("of ours")):
        with pytest.raises(type(bug), match="of ours"):
            opening(bug)
    for error, message in (
        (PermissionError(13, "Permission denied"), "got no permission to read it; expected a file"),
        (OSError(5, "Input/output error"), "got Input/output error; expected a file that can be"),
        (MemoryError(), r"got no memory for its [\d,]+ bytes; expected more free memory"),
    ):
        with pytest.raises(WeightsError, match=f"^{path}: {message}"):
            opening(error)
