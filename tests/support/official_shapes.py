"""Names and shapes of official files, from abstract models: no memory is used."""

from rae_dit.models.ddt import DDT
from rae_dit.models.decoder import Decoder
from rae_dit.weights.mapping import export_shapes, parameters_of
from rae_dit.weights.official import (
    OFFICIAL_ATTENTION,
    ddt_buffers,
    ddt_entries,
    decoder_buffers,
    decoder_entries,
)

Shapes = dict[str, tuple[int, ...]]


def ddt_shapes(abstract: DDT) -> Shapes:
    """What `export_ddt` would write for a model made by `nnx.eval_shape`."""
    buffers = {name: value.shape for name, value in ddt_buffers(abstract).items()}
    return export_shapes(ddt_entries(abstract), parameters_of(abstract)) | buffers


def decoder_shapes(abstract: Decoder) -> Shapes:
    """What `export_decoder` would write for a model made by `nnx.eval_shape`."""
    entries = decoder_entries(abstract.trunk.depth, attention=OFFICIAL_ATTENTION)
    buffers = {name: value.shape for name, value in decoder_buffers(abstract).items()}
    return buffers | export_shapes(entries, parameters_of(abstract))
