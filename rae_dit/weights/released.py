"""DiT^DH and decoders from third-party files: finds the file, reads its architecture, fills it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from flax import nnx

from rae_dit.architecture import Compute, DDTArchitecture, Pixels, Prediction
from rae_dit.models.ddt import DDT
from rae_dit.models.decoder import Decoder
from rae_dit.weights.architecture import (
    Pair,
    ddt_architecture,
    decoder_architecture,
)
from rae_dit.weights.config_file import read_fields, read_json
from rae_dit.weights.diffusers import is_autoencoder_rae, read_diffusers_decoder
from rae_dit.weights.directory import single_file
from rae_dit.weights.encoder_names import without_prefix
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.header import read_ddt_facts, read_header
from rae_dit.weights.hub import find
from rae_dit.weights.mapping import Tensors
from rae_dit.weights.official import import_ddt, import_decoder
from rae_dit.weights.raev2 import without_training_heads
from rae_dit.weights.state_dict import Weights
from rae_dit.weights.tensor_file import open_tensors

log = logging.getLogger(__name__)

DDT_FILES = ("stage2_model.pt", "checkpoint.pt", "*.safetensors")
# What transformers takes for what the config of a decoder (a ViTMAEConfig) leaves out.
DECODER_DEFAULTS: dict[str, Any] = {
    "decoder_num_attention_heads": 16,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
DECODER_FILES = ("config.json", "model.pt", "dinov2_decoder.pt", "decoder.pt", "*.safetensors")


class DDTFile(NamedTuple):
    """A DiT^DH that is not built yet: its tensors, and what its header says beside them."""

    tensors: Tensors
    facts: dict[str, Any]


def open_ddt(source: str | Path, weights: Weights = "ema") -> DDTFile:
    """Opens a DiT^DH: a file, a directory with one, or a hub id and a path inside.

    Args:
        source: the file, directory or id.
        weights: which of a training checkpoint's.

    Raises:
        WeightsError: if there is no such file, it cannot be opened safely, or it has not these
            weights.
    """
    path = single_file(find(source, DDT_FILES))
    tensors = without_training_heads(open_tensors(path, weights))
    return DDTFile(tensors, read_ddt_facts(read_header(path)))


def read_ddt(
    source: str | Path,
    compute: Compute = Compute(),
    *,
    input_size: int | None = None,
    depth: Pair | None = None,
    num_heads: Pair | None = None,
    base_depth: int | None = None,
    prediction: Prediction | None = None,
    weights: Weights = "ema",
) -> DDT:
    """Reads a DiT^DH from a third-party file; arguments and errors are those of `api.load_ddt`."""
    tensors, facts = open_ddt(source, weights)
    hints = {
        "input_size": input_size,
        "depth": depth,
        "num_heads": num_heads,
        "base_depth": base_depth,
        "prediction": prediction,
    }
    architecture = ddt_architecture(tensors, **{**hints, **facts})
    if facts and "prediction" not in facts and prediction is None:
        log.warning(
            "%s: prediction is not in the header: taking %r, as of the reference's files of this "
            "kind; give prediction= if it is not so",
            source,
            architecture.prediction,
        )
    for told in (facts, hints):  # a header that the tensors contradict is not theirs
        check_told(architecture, told, source)
    return import_ddt(tensors, nnx.eval_shape(lambda: DDT(architecture, compute, rngs=nnx.Rngs(0))))


def check_told(architecture: DDTArchitecture, told: Mapping[str, Any], source: str | Path) -> None:
    """Raises WeightsError where what was told of a DiT^DH (None for nothing) is not what it is."""
    for name, hint in told.items():
        found = getattr(architecture, name)
        if hint is not None and hint != found:
            raise WeightsError(f"{name}: got {hint}; expected {found}, which {source} has")


def told_pixels(source: str | Path) -> Pixels | None:
    """Returns what the header of a decoder's file says its outputs are; None if it says nothing.

    Raises:
        WeightsError: there is no such file, or its header is damaged.
    """
    header = read_header(single_file(find(source, DECODER_FILES)))
    if (found := header.get("pixels")) not in (None, *get_args(Pixels)):
        raise WeightsError(f"header: got pixels {found!r}; expected one of {get_args(Pixels)}")
    return found


def read_decoder(
    source: str | Path, compute: Compute = Compute(), *, weights: Weights = "ema"
) -> Decoder:
    """Reads a decoder: a file, a directory with one, or a hub id (with a path inside).

    Of a stage-1 training checkpoint or a diffusers `AutoencoderRAE`, which hold the encoder too,
    the decoder's part is taken.

    Heads and eps come from the `config.json` beside it, or from the header of a file of ours;
    without one, from the released widths, which is logged.

    Raises:
        WeightsError: if the file cannot be opened safely, or does not fit a decoder.
    """
    path = single_file(find(source, DECODER_FILES))
    config_path = path.parent / "config.json"
    config: dict[str, Any] | None = None
    if config_path.exists():
        content = read_json(config_path)
        if is_autoencoder_rae(content):
            return read_diffusers_decoder(path.parent, compute)
        if "decoder_num_attention_heads" in content:
            config = read_fields(content, DECODER_DEFAULTS, config_path)
    tensors = open_tensors(path, weights)
    header = read_header(path)
    if config is None and "decoder" in header:
        config = read_fields(header["decoder"], DECODER_DEFAULTS, path)
    if "decoder.decoder_embed.weight" in tensors:
        log.warning("%s: taking 'decoder.*' of a whole autoencoder", path)
        tensors = without_prefix(tensors, "decoder.")
    architecture = decoder_architecture(tensors, config)
    abstract = nnx.eval_shape(lambda: Decoder(architecture, compute, rngs=nnx.Rngs(0)))
    return import_decoder(tensors, abstract)
