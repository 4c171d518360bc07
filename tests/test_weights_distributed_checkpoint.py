"""Checkpoints of torch.distributed: read as torch reads them, and refused where not whole."""

import io
import pickle
import shutil

import numpy as np
import pytest
import torch
from torch.distributed import checkpoint
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from rae_dit.weights.errors import WeightsError
from rae_dit.weights.tensor_file import open_tensors


@pytest.mark.filterwarnings("ignore:torch.distributed")
def test_a_checkpoint_that_torch_saved(tmp_path):
    generator = torch.Generator().manual_seed(0)
    ema = {
        "blocks.0.weight": torch.randn(4, 6, generator=generator),
        "half": torch.randn(3, generator=generator).bfloat16(),
        "scalar": torch.tensor(2.0),
        "none": torch.zeros(0, 3),
    }
    model = {name: -tensor for name, tensor in ema.items()}
    content = {"model": model, "ema": ema, "step": 3, "args": {"lr": 0.1}}
    checkpoint.save(content, checkpoint_id=tmp_path / "step", no_dist=True)
    tensors = open_tensors(tmp_path / "step")
    assert sorted(tensors) == sorted(ema)
    for name, tensor in ema.items():
        np.testing.assert_array_equal(tensors[name].astype(np.float32), tensor.float().numpy())
    online = open_tensors(tmp_path / "step", "online")
    np.testing.assert_array_equal(online["blocks.0.weight"], -ema["blocks.0.weight"].numpy())


WHOLE = torch.arange(20.0).reshape(5, 4)


@pytest.fixture
def sharded(tmp_path):
    """A tensor of two processes, three rows and two, as FSDP2 splits it."""
    chunks, places = [], {}
    for rank, rows in enumerate((slice(0, 3), slice(3, 5))):
        part, file = WHOLE[rows].clone(), io.BytesIO()
        torch.save(part, file)
        before = b"another chunk " * rank
        (tmp_path / f"__{rank}_0.distcp").write_bytes(before + file.getvalue() + b"after")
        start = torch.Size((rows.start, 0))
        chunks.append(ChunkStorageMetadata(start, part.shape))
        length = len(file.getvalue())
        info = _StorageInfo(f"__{rank}_0.distcp", len(before), length)
        places[MetadataIndex("model.w", start, rank)] = info
    tensor = TensorStorageMetadata(TensorProperties(torch.float32), WHOLE.shape, chunks)
    metadata = Metadata({"model.w": tensor}, {"model.w": ("model", "w")}, places)
    write(tmp_path, metadata)
    return tmp_path, metadata, tensor, places


def write(directory, metadata):
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))


@pytest.mark.filterwarnings("ignore:torch.distributed")
def test_chunks_are_put_together_as_torch_does(sharded):
    directory = sharded[0]
    target = {"model": {"w": torch.zeros(5, 4)}}
    checkpoint.load(target, checkpoint_id=directory, no_dist=True)
    np.testing.assert_array_equal(target["model"]["w"].numpy(), WHOLE.numpy())
    np.testing.assert_array_equal(open_tensors(directory)["w"], WHOLE.numpy())


def without_a_chunk(directory, metadata, tensor, places):
    del tensor.chunks[1]


def without_a_place(directory, metadata, tensor, places):
    del places[next(iter(places))]


def beyond_the_tensor(directory, metadata, tensor, places):
    tensor.size = torch.Size((4, 5))


def larger_than_its_files(directory, metadata, tensor, places):
    tensor.size = torch.Size((1 << 40, 4))
    tensor.chunks[1].sizes = torch.Size(((1 << 40) - 3, 4))


def elsewhere(directory, metadata, tensor, places):
    next(iter(places.values())).relative_path = "../__0_0.distcp"


def compressed(directory, metadata, tensor, places):
    next(iter(places.values())).transform_descriptors = ["zstd"]


def of_other_dtype(directory, metadata, tensor, places):
    tensor.properties.dtype = torch.int32


def cut_metadata(directory, metadata, tensor, places):
    metadata.state_dict_metadata = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_chunk, r"chunks do not make up model.w \(5, 4\)"),
        (without_a_place, "a chunk of model.w is nowhere"),
        (beyond_the_tensor, "a chunk of model.w is nowhere"),
        (larger_than_its_files, "chunks do not make up model.w"),
        (elsewhere, "a chunk is not in a file of the directory"),
        (compressed, "chunks are compressed"),
        (of_other_dtype, "a chunk is not of int32"),
        (cut_metadata, "it has no state_dict_metadata"),
    ],
)
def test_what_does_not_fit_is_one_line(sharded, change, message):
    directory, metadata, *_ = sharded
    change(*sharded)
    write(directory, metadata)
    with pytest.raises(WeightsError, match=message) as caught:
        open_tensors(directory)["w"]
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_cut_is_named(sharded, tmp_path):
    directory = sharded[0]
    content = (directory / "__1_0.distcp").read_bytes()
    (directory / "__1_0.distcp").write_bytes(content[:200])
    with pytest.raises(WeightsError, match=r"__1_0\.distcp"):
        open_tensors(directory)["w"]
    (directory / "__1_0.distcp").unlink()
    with pytest.raises(WeightsError, match=r"__1_0\.distcp is missing"):
        open_tensors(directory)
    shutil.copy(directory / "__0_0.distcp", directory / ".metadata")
    with pytest.raises(WeightsError, match=r"\.metadata is damaged"):
        open_tensors(directory)
