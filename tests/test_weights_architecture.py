"""Architectures read off files: what we write is read as it was, or asked for; never guessed."""

import contextlib
import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from flax import nnx
from support.golden_files import GOLDEN
from support.official_shapes import ddt_shapes

from rae_dit.architecture import Compute, DDTArchitecture
from rae_dit.models.ddt import DDT
from rae_dit.weights import released
from rae_dit.weights.architecture import ddt_architecture, ddt_mlp_ratio
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.header import ddt_facts, read_ddt_facts, read_header
from rae_dit.weights.released import read_ddt
from rae_dit.weights.tensor_file import open_tensors, save_tensors

ZERO = np.zeros((), np.float32)


def hollow(shapes):
    return {name: np.broadcast_to(ZERO, shape) for name, shape in shapes.items()}


def random_architecture(rng):
    heads = (rng.choice([1, 2, 3]), rng.choice([1, 2, 5]))
    widths = tuple(number * 4 * rng.randint(1, 6) for number in heads)
    if rng.random() < 0.3:
        heads, widths = (rng.choice([1, 2]), rng.choice([1, 2, 4])), (16, 16)
    return DDTArchitecture(
        input_size=2 * rng.randint(1, 3),
        in_channels=rng.randint(1, 5),
        num_classes=rng.randint(1, 9),
        patch_size=rng.choice([1, 2]),
        hidden_size=widths,
        depth=(rng.randint(1, 3), rng.randint(1, 3)),
        num_heads=heads,
        mlp_ratio=rng.choice([4.0, 2.5, rng.uniform(0.5, 6)]),
        use_qknorm=rng.random() < 0.5,
        use_swiglu=rng.random() < 0.5,
        use_rope=rng.random() < 0.5,
        use_rmsnorm=rng.random() < 0.5,
        use_pos_embed=rng.random() < 0.5,
    )


@pytest.mark.parametrize("seed", range(16))
def test_what_is_written_is_read_as_what_it_was(seed, caplog):
    written = random_architecture(random.Random(seed))
    model = nnx.eval_shape(lambda: DDT(written, Compute(), rngs=nnx.Rngs(0)))
    tensors = hollow(ddt_shapes(model))
    header = json.loads(json.dumps({"ddt": ddt_facts(written)}))
    assert ddt_architecture(tensors, **read_ddt_facts(header)) == written
    assert not caplog.text
    # Without the header, the same sizes or a question.
    told_heads = written.use_rope or written.use_qknorm
    told_size = written.use_rope or written.use_pos_embed
    if not told_heads or not told_size or written.hidden_size[0] == written.hidden_size[1]:
        with contextlib.suppress(WeightsError):
            read = ddt_architecture(tensors)
            assert told_heads
            assert told_size
            assert read.depth == written.depth
        return
    read = ddt_architecture(tensors)
    ratios = {"mlp_ratio": read.mlp_ratio}
    assert read == dataclasses.replace(written, **ratios)
    again = nnx.eval_shape(lambda: DDT(read, Compute(), rngs=nnx.Rngs(0)))
    assert ddt_shapes(again) == ddt_shapes(model)


@pytest.mark.parametrize("swiglu", [False, True])
def test_a_ratio_is_found_for_all_widths_that_one_gives(swiglu):
    rng = random.Random(0)
    name = "mlp.w3.weight" if swiglu else "mlp.fc2.weight"

    def mlp(width, ratio):  # as the models round
        return int(2 / 3 * int(width * ratio)) if swiglu else int(width * ratio)

    for _ in range(1500):
        widths = (8 * rng.randint(1, 300), 8 * rng.randint(1, 300))
        ratio = rng.choice([rng.uniform(0.2, 8), rng.randint(1, 80) / 10])
        sizes = [mlp(width, ratio) for width in widths]
        shapes = {f"blocks.{i}.{name}": (1, size) for i, size in enumerate(sizes)}
        if swiglu:
            shapes["blocks.0.mlp.w12.weight"] = (1, 1)
        found = ddt_mlp_ratio(hollow(shapes), widths, last=1, hint=None)
        assert [mlp(width, found) for width in widths] == sizes
    shapes = {f"blocks.{i}.{name}": (1, size) for i, size in enumerate((8, 99))}
    if swiglu:
        shapes["blocks.0.mlp.w12.weight"] = (1, 1)
    with pytest.raises(WeightsError, match=r"mlp_ratio: got MLPs of \[8, 99\] at widths \(8, 8\)"):
        ddt_mlp_ratio(hollow(shapes), (8, 8), last=1, hint=None)


HEADS = (2, 4)  # of the file below, which its tensors do not tell


@pytest.fixture
def plain(monkeypatch):
    """A state dict with neither RoPE nor positions; networks are not filled."""
    monkeypatch.setattr(released, "import_ddt", lambda tensors, abstract: abstract.architecture)
    tensors = dict(open_tensors(GOLDEN / "ddt_default_weak.pt"))
    return {
        name: tensors[name] for name in tensors if "pos_embed" not in name and "rope" not in name
    }


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_header_of_our_files_tells_what_tensors_do_not(plain, suffix, tmp_path):
    path, bare = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    architecture = ddt_architecture(plain, input_size=4, num_heads=HEADS)
    save_tensors(path, plain, {"ddt": ddt_facts(architecture)})
    assert read_ddt(path) == architecture
    with pytest.raises(WeightsError, match=r"num_heads: got \(4, 4\); expected \(2, 4\), which "):
        read_ddt(path, num_heads=(4, 4))
    save_tensors(bare, dict(open_tensors(path)))
    assert read_header(bare) == {}
    with pytest.raises(WeightsError, match="input_size: got none; expected the side"):
        read_ddt(bare)
    with pytest.raises(WeightsError, match=r"num_heads: got none; expected num_heads=\(backbone"):
        read_ddt(bare, input_size=4)
    assert read_ddt(bare, input_size=4, num_heads=HEADS) == architecture


def test_torch_opens_a_file_with_a_header(plain, tmp_path):
    save_tensors(tmp_path / "a.pt", plain, {"ddt": {}})
    assert set(torch.load(tmp_path / "a.pt", weights_only=True)) == set(plain)


@pytest.mark.parametrize("facts", [{"num_heads": [2, 4]}, {"num_heads": 3}, [1], "x"])
def test_a_damaged_header_is_refused(plain, facts, tmp_path):
    save_tensors(tmp_path / "a.pt", plain, {"ddt": facts})
    with pytest.raises(WeightsError, match=r"header: got .*; expected input_size, depth,"):
        read_ddt(tmp_path / "a.pt")


@pytest.mark.usefixtures("plain")
def test_a_header_of_other_tensors_is_refused(tmp_path):
    tensors = dict(open_tensors(GOLDEN / "ddt_default_weak.pt"))
    facts = ddt_facts(ddt_architecture(tensors)) | {"num_heads": (2, 2)}
    save_tensors(tmp_path / "a.pt", tensors, {"ddt": facts})
    with pytest.raises(WeightsError, match=r"num_heads: got \(2, 2\); expected \(4, 4\), which "):
        read_ddt(tmp_path / "a.pt")


def test_odd_tensors_end_in_one_line():
    tensors = dict(open_tensors(GOLDEN / "ddt_default_weak.pt"))
    assert isinstance(ddt_architecture(tensors), DDTArchitecture)
    rng = random.Random(0)
    for _ in range(300):
        odd = dict(tensors)
        for name in rng.sample(sorted(odd), rng.randint(1, 3)):
            shape = tuple(rng.choice([0, 1, 3, 5, 7]) for _ in range(rng.randint(0, 4)))
            odd[name] = np.zeros(shape, np.float32)
            if rng.random() < 0.5:
                del odd[name]
        with contextlib.suppress(WeightsError):
            ddt_architecture(odd)
