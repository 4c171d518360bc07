"""Names and shapes of official files, from abstract models: no memory is used."""

from rae_dit.models.ddt import DDT
from rae_dit.models.decoder import Decoder
from rae_dit.weights.mapping import export_shapes, parameters_of
from rae_dit.weights.official import ddt_buffers, ddt_entries, official_decoder_entries

Shapes = dict[str, tuple[int, ...]]


def ddt_shapes(abstract: DDT) -> Shapes:
    """What `export_ddt` would write for a model made by `nnx.eval_shape`."""
    buffers = {name: value.shape for name, value in ddt_buffers(abstract).items()}
    return export_shapes(ddt_entries(abstract), parameters_of(abstract)) | buffers


def decoder_shapes(abstract: Decoder) -> Shapes:
    """What `export_decoder` would write for a model made by `nnx.eval_shape`."""
    return export_shapes(official_decoder_entries(abstract), parameters_of(abstract))
