"""What a user types: released (or our own) weights in, models out."""

import json
from pathlib import Path
from typing import Any, Unpack

from flax import nnx

from rae_dit.models.ddt import DDT
from rae_dit.models.decoder import Decoder
from rae_dit.models.rae import RAE
from rae_dit.weights.architecture import Pair, ddt_architecture, decoder_architecture
from rae_dit.weights.diffusers import load_diffusers
from rae_dit.weights.encoder_names import without_prefix
from rae_dit.weights.hub import find, find_encoder
from rae_dit.weights.huggingface import Compute, load_encoder
from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.official import import_ddt, import_decoder
from rae_dit.weights.statistics import read_statistics
from rae_dit.weights.tensor_file import open_tensors

DDT_FILES = ("stage2_model.pt", "*.safetensors")
DIFFUSERS_FILES = ("config.json", "*.safetensors")
DECODER_FILES = ("config.json", "model.pt", "dinov2_decoder.pt", "*.safetensors")


def load_ddt(
    source: str | Path,
    *,
    input_size: int | None = None,
    depth: Pair | None = None,
    num_heads: Pair | None = None,
    **compute: Unpack[Compute],
) -> DDT:
    """Loads a DiT^DH; its architecture is read off the file.

    Args:
        source: an official file (.pt, .ckpt, .safetensors), a directory with one, or a hub id
            with the path inside ("owner/repository/…/stage2_model.pt").
        input_size: side of the latent grid, where a file does not tell it (no RoPE, no position
            embedding).
        depth: blocks of backbone and head, where a file does not tell them (equal widths).
        num_heads: heads of both, where a file does not tell them (no RoPE, unusual widths).
        **compute: `dtype` (float32), `attention`, `scan_layers`, `remat`, as in `DDT`.

    Returns:
        The model: `ddt(x, t, y)` gives the velocity.

    Raises:
        WeightsError: if the file cannot be opened safely, or does not fit a DiT^DH.
    """
    tensors = open_tensors(single_file(find(source, DDT_FILES)))
    architecture = ddt_architecture(
        tensors, input_size=input_size, depth=depth, num_heads=num_heads
    )
    abstract = nnx.eval_shape(lambda: DDT(**architecture, **compute, rngs=nnx.Rngs(0)))
    return import_ddt(tensors, abstract)


def load_decoder(source: str | Path, **compute: Unpack[Compute]) -> Decoder:
    """Loads an official decoder: a file, a directory with one, or a hub id with a path inside.

    Of a stage-1 training checkpoint, which holds the encoder too, the decoder's part is taken.

    Heads and eps come from the `config.json` beside it; without one, from the released widths.

    Raises:
        WeightsError: if the file cannot be opened safely, or does not fit a decoder.
    """
    path = single_file(find(source, DECODER_FILES))
    config_path = path.parent / "config.json"
    config: dict[str, Any] | None = None
    if config_path.exists():
        content = json.loads(config_path.read_text())
        config = content if "decoder_num_attention_heads" in content else None
    tensors = open_tensors(path)
    if "decoder.decoder_embed.weight" in tensors:
        print(f"{path}: taking 'decoder.*' of a whole autoencoder")
        tensors = without_prefix(tensors, "decoder.")
    architecture = decoder_architecture(tensors, config)
    abstract = nnx.eval_shape(lambda: Decoder(**architecture, **compute, rngs=nnx.Rngs(0)))
    return import_decoder(tensors, abstract)


def load_rae(
    source: str | Path | None = None,
    *,
    encoder: str | Path | None = None,
    decoder: str | Path | None = None,
    stats: str | Path | None = None,
    encoder_input_size: int | None = None,
    **compute: Unpack[Compute],
) -> RAE:
    """Loads a representation autoencoder, from its parts or from a diffusers directory.

    Args:
        source: a diffusers `AutoencoderRAE` directory or hub id; then nothing else is given.
        encoder: a Hugging Face directory or hub id, or a name of the reference ("Dinov2withNorm").
        decoder: an official file, a directory with one, or a hub id with a path inside; None for
            encoding only.
        stats: official `stat.pt` or our `.npz`; None for raw latents.
        encoder_input_size: side in pixels of what the encoder sees. None takes the size that
            gives the decoder's number of tokens, or without a decoder that of the encoder's
            position table.
        **compute: `dtype` (float32), `attention`, `scan_layers`, `remat`, as in the models.

    Returns:
        The autoencoder: `rae.encode(image)`, `rae.decode(latent)`.

    Raises:
        WeightsError: if a file cannot be opened safely, or does not fit.
        ValueError: if the parts do not fit each other.
    """
    if source is not None:
        if (encoder, decoder, stats, encoder_input_size) != (None, None, None, None):
            raise ValueError(
                "load_rae got a diffusers directory and parts besides; give one or the other."
            )
        return load_diffusers(find(source, DIFFUSERS_FILES), **compute)
    if encoder is None:
        raise ValueError("load_rae needs an encoder, or a diffusers directory in its place.")
    decoding = None if decoder is None else load_decoder(decoder, **compute)
    encoding, image_mean, image_std = load_encoder(
        find_encoder(encoder),
        input_size=encoder_input_size,
        grid=None if decoding is None else decoding.grid,
        **compute,
    )
    statistics = None
    if stats is not None:
        statistics = read_statistics(find(stats, ()), encoding.grid, encoding.hidden_size)
    return RAE(
        encoding,
        decoding,
        image_mean=image_mean,
        image_std=image_std,
        latent_mean=None if statistics is None else statistics.mean,
        latent_variance=None if statistics is None else statistics.variance,
    )


def single_file(path: Path) -> Path:
    """The one file of weights in a directory, or the file itself.

    Raises:
        WeightsError: if there is none, or more than one.
    """
    if path.is_file():
        return path
    found = [p for p in sorted(path.iterdir()) if p.suffix in (".pt", ".pth", ".safetensors")]
    if len(found) != 1:
        names = [p.name for p in found]
        raise WeightsError(f"{path} should hold one file of weights and holds {names}; name one.")
    return found[0]
