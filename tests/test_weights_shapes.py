"""Sizes read off tensors of impossible shapes: one line each, and no large table is computed."""

from collections import Counter

import numpy as np
import pytest
from flax import nnx
from support.golden_files import GOLDEN

from rae_dit.architecture import Compute
from rae_dit.models.ddt import DDT
from rae_dit.weights.architecture import ddt_architecture, decoder_architecture
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.mapping import import_tensors, parameters_of
from rae_dit.weights.official import ddt_buffers, ddt_entries
from rae_dit.weights.tensor_file import LazyTensors, open_tensors

CHANGES = {
    "scalar": lambda shape: (),
    "flat": lambda shape: (int(np.prod(shape)),),
    "more sizes": lambda shape: (1, *shape),
    "none": lambda shape: (0, *shape[1:]),
    "wide": lambda shape: (*shape[:-1], 1 << 20),
    "long": lambda shape: (1 << 20, *shape[1:]),
}


def shapes(file):
    """Tensors of a file's shapes that take no memory."""
    return {name: hollow(tensor.shape) for name, tensor in open_tensors(GOLDEN / file).items()}


def hollow(shape):
    return np.broadcast_to(np.float32(0), shape)


@pytest.mark.parametrize(
    ("read", "file"),
    [
        (ddt_architecture, "ddt_default_weak.pt"),
        (lambda tensors: ddt_architecture(tensors, base_depth=2), "raev2/dit_default.pt"),
        (lambda tensors: decoder_architecture(tensors, None), "rae_mae_decoder/model.pt"),
    ],
)
def test_impossible_shapes_are_one_line(read, file):
    tensors = shapes(file)
    refused = []
    for name, tensor in tensors.items():
        changed = [tensors | {name: hollow(change(tensor.shape))} for change in CHANGES.values()]
        for case in (*changed, {other: tensors[other] for other in tensors if other != name}):
            try:
                read(case)
            except WeightsError as error:
                refused.append(str(error))
    assert len(refused) > 20
    assert not [message for message in refused if "\n" in message]


def test_positions_larger_than_the_file_are_refused():
    """They would be computed for all tokens of one tensor, in the width of another."""
    tensors, size = shapes("ddt_default_weak.pt"), 1 << 18
    assert ddt_architecture(tensors).input_size == 4
    tensors["pos_embed"] = hollow((1, size, 1))
    with pytest.raises(WeightsError, match=r"pos_embed: got shape .*; expected 262144 rows of 32"):
        ddt_architecture(tensors)
    decoder = shapes("rae_mae_decoder/model.pt")
    decoder["decoder_pos_embed"] = hollow(
        (1, (1 << 20) ** 2 + 1, decoder["decoder_embed.bias"].size)
    )
    with pytest.raises(WeightsError, match="decoder_pos_embed: got 1099511627777 tokens"):
        decoder_architecture(decoder, None)
    with pytest.raises(WeightsError, match="grid: got 1048576 tokens a side; expected 1 to 512"):
        decoder_architecture(decoder, None, grid=1 << 20)


def test_sizes_are_read_without_the_numbers():
    """Architectures ask for shapes alone, and importing reads each tensor once."""

    class Counted(LazyTensors):
        def __getitem__(self, name):
            reads[name] += 1
            return super().__getitem__(name)

    opened, reads = open_tensors(GOLDEN / "ddt_default_weak.pt"), Counter()
    tensors = Counted(opened.tensors, opened.path)
    architecture = ddt_architecture(tensors)
    assert not reads
    abstract = nnx.eval_shape(lambda: DDT(architecture, Compute(), rngs=nnx.Rngs(0)))
    entries, wanted = ddt_entries(abstract), parameters_of(abstract)
    import_tensors(entries, tensors, wanted, what="a file", fixed=ddt_buffers(abstract))
    assert reads == Counter(list(tensors))
