"""Public loaders: released weights, or runs of this project, to models."""

from pathlib import Path
from typing import Any, TypedDict, Unpack

from jax.typing import DTypeLike

from rae_dit.architecture import Attention, Pixels, Prediction, Remat
from rae_dit.config import ConfigError
from rae_dit.models.ddt import DDT
from rae_dit.models.decoder import Decoder
from rae_dit.models.rae import RAE
from rae_dit.setup import models
from rae_dit.setup.compute import make_compute, with_compute
from rae_dit.setup.published import published_ddt, published_rae, read_published
from rae_dit.setup.trained import rae_of_run, trained_ddt, trained_decoder
from rae_dit.storage.places import place
from rae_dit.weights import released
from rae_dit.weights.architecture import Pair
from rae_dit.weights.diffusers import read_diffusers
from rae_dit.weights.hub import find, find_encoder
from rae_dit.weights.huggingface import read_encoder
from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.publish import find_published
from rae_dit.weights.released import DDT_FILES
from rae_dit.weights.state_dict import Weights
from rae_dit.weights.statistics import check_encoder, read_statistics
from rae_dit.workdir import find_run, read_config

DIFFUSERS_FILES = ("config.json", "*.safetensors", "*.safetensors.index*.json")


class ComputeKeywords(TypedDict, total=False):
    """Keyword arguments of all loaders; meaning and defaults are those of `Compute`."""

    attention: Attention
    scan_layers: bool
    remat: Remat
    dtype: DTypeLike


def load_ddt(
    source: str | Path,
    *,
    input_size: int | None = None,
    depth: Pair | None = None,
    num_heads: Pair | None = None,
    base_depth: int | None = None,
    prediction: Prediction | None = None,
    weights: Weights = "ema",
    **compute: Unpack[ComputeKeywords],
) -> DDT:
    """Loads a DiT^DH; its architecture is read off the file.

    Args:
        source: an official file (.pt, .ckpt, .safetensors), a directory with one, or a hub id
            with the path inside ("owner/repository/…/stage2_model.pt"); a published model
            (`python -m rae_dit.weights publish`): its directory or hub id; or a stage-2 run of this
            project: its workdir, the checkpoints in it (both: newest step) or one step. Of a run
            the EMA is taken.
        input_size: side of the latent grid, if the file does not tell it (no RoPE, no position
            embedding).
        depth: blocks of backbone and head, if the file does not tell them (equal widths).
        num_heads: heads of both, if the file does not tell them (no RoPE, no qk-norm).
        base_depth: blocks before the second head of an RAEv2 network, which no file tells; None
            takes the 8 of the published ones.
        prediction: what the outputs are, the velocity "v" or the data "x", if the file does not
            tell; None takes that of the reference's files: "v" of RAE, "x" of RAEv2.
        weights: of a training checkpoint: "ema" takes its EMA, or what there is if it has none;
            "online" takes the weights that the EMA averages.
        **compute: `dtype` (float32), `attention`, `scan_layers`, `remat`: fields of `Compute`.

    Returns:
        The model: `ddt(x, t, y)` gives the velocity; `ddt.heads(x, t, y)` that of both heads of an
        RAEv2 network.

    Raises:
        WeightsError: if the file cannot be opened safely, does not fit a DiT^DH, or contradicts an
            argument.
        ConfigError: if the run is not of stage 2, or of another version.
        CheckpointError: if the run has no sound checkpoint.
    """
    told: dict[str, Any] = {
        "input_size": input_size,
        "depth": depth,
        "num_heads": num_heads,
        "base_depth": base_depth,
        "prediction": prediction,
    }
    run = find_run(source)
    if run is None and (published := find_published(source, DDT_FILES)) is not None:
        check_run_weights(published, weights)
        return published_ddt(published, read_published(published, make_compute(**compute)))
    if run is None:
        return released.read_ddt(source, make_compute(**compute), **told, weights=weights)
    check_run_weights(run, weights)
    config = with_compute(read_config(run), make_compute(**compute))
    if config.trained_network != "ddt":
        raise ConfigError(
            f"{run} is a run with objective {config.objective!r}; load_ddt needs a run of stage 2: "
            "'flow_matching', 'trajectory' or 'mean_flow'"
        )
    released.check_told(models.ddt_architecture(config), told, source)
    return trained_ddt(config, place(source))


def load_rae(
    source: str | Path | None = None,
    *,
    encoder: str | Path | None = None,
    decoder: str | Path | None = None,
    stats: str | Path | None = None,
    encoder_input_size: int | None = None,
    encoder_layers: tuple[int, ...] = (),
    encoder_add_mean: bool = False,
    decoder_pixels: Pixels | None = None,
    weights: Weights = "ema",
    **compute: Unpack[ComputeKeywords],
) -> RAE:
    """Loads a representation autoencoder: from its parts, a diffusers directory or a run.

    Args:
        source: a diffusers `AutoencoderRAE` or a published model (directory or hub id), or the
            workdir, checkpoints or step of a run; then nothing else is given. A reconstruction run
            gives its decoder (EMA), a classification run its encoder if it trained that, and every
            run the other parts and the statistics that its config names, relative to the current
            directory.
        encoder: a Hugging Face directory or hub id, or a name of the reference ("Dinov2withNorm").
        decoder: an official file, a directory with one, a hub id with a path inside, or a
            reconstruction run of this project (its EMA); None for encoding only.
        stats: official `stat.pt` or our `.npz`; None for raw latents.
        encoder_input_size: side in pixels of what the encoder sees. None takes the size that
            gives the decoder's number of tokens, or without a decoder that of the encoder's
            position table; an encoder without one (DINOv3) then needs it.
        encoder_layers: blocks, from 0, whose normalized outputs are averaged, as RAEv2 does; ()
            takes the last.
        encoder_add_mean: add the mean of the last of them over all patches to every token.
        decoder_pixels: what the decoder gives: "normalized" as the encoder's input (RAE), or "unit"
            for images in [0, 1] (RAEv2). None takes what a run, or a file that `export-decoder`
            wrote of one, says, and "normalized" of other files.
        weights: of the decoder's file: the EMA or the "online" weights, as in `load_ddt`.
        **compute: `dtype` (float32), `attention`, `scan_layers`, `remat`: fields of `Compute`.

    Returns:
        The autoencoder: `rae.encode(image)`, `rae.decode(latent)`.

    Raises:
        WeightsError: if a file cannot be opened safely, or does not fit.
        ValueError: if the parts do not fit each other.
    """
    if source is not None:
        parts = (encoder, decoder, stats, encoder_input_size, encoder_layers or None)
        if parts != (None,) * 5 or encoder_add_mean or decoder_pixels is not None:
            raise ValueError(
                "load_rae got a whole autoencoder and parts besides; give one or the other."
            )
        run = find_run(source)
        if run is not None:
            check_run_weights(run, weights)
            config = with_compute(read_config(run), make_compute(**compute))
            return rae_of_run(config, place(source))
        if (published := find_published(source, DIFFUSERS_FILES)) is not None:
            check_run_weights(published, weights)
            return published_rae(published, read_published(published, make_compute(**compute)))
        return read_diffusers(find(source, DIFFUSERS_FILES), make_compute(**compute))
    if encoder is None:
        raise ValueError("encoder: got None; expected an encoder, or `source` for a whole RAE")
    pixels = None if decoder is None else decoder_pixels_of(decoder)
    if None not in (pixels, decoder_pixels) and pixels != decoder_pixels:
        raise WeightsError(
            f"decoder_pixels: got {decoder_pixels!r}; expected {pixels!r}, which {decoder} gives"
        )
    decoding = None if decoder is None else load_decoder(decoder, weights=weights, **compute)
    encoding, image_mean, image_std = read_encoder(
        find_encoder(encoder),
        make_compute(**compute),
        input_size=encoder_input_size,
        grid=None if decoding is None else decoding.grid,
        layers=encoder_layers,
        add_mean=encoder_add_mean,
    )
    statistics = None
    if stats is not None:
        file = find(stats, ())
        statistics = read_statistics(file, encoding.grid, encoding.hidden_size)
        check_encoder(statistics, encoding.architecture, file)
    return RAE(
        encoding,
        decoding,
        image_mean=image_mean,
        image_std=image_std,
        latent_mean=None if statistics is None else statistics.mean,
        latent_variance=None if statistics is None else statistics.variance,
        pixels=pixels or decoder_pixels or "normalized",
    )


def decoder_pixels_of(source: str | Path) -> Pixels | None:
    """Returns what a decoder's outputs are, of a run or of a file that says it; else None."""
    run = find_run(source)
    return released.told_pixels(source) if run is None else read_config(run).decoder.pixels


def load_decoder(
    source: str | Path, *, weights: Weights = "ema", **compute: Unpack[ComputeKeywords]
) -> Decoder:
    """Loads a decoder alone, as `load_rae` does with its argument `decoder`.

    Raises:
        WeightsError: if a file cannot be opened safely, or does not fit a decoder.
        ConfigError: if the run is not of stage 1, or of another version.
        CheckpointError: if the run has no sound checkpoint.
    """
    run = find_run(source)
    if run is None:
        return released.read_decoder(source, make_compute(**compute), weights=weights)
    check_run_weights(run, weights)
    config = with_compute(read_config(run), make_compute(**compute))
    if config.trained_network != "decoder":
        raise ConfigError(
            f"{run} is a run with objective {config.objective!r}; a decoder is that of a run with "
            "'reconstruction'"
        )
    return trained_decoder(config, place(source))


def check_run_weights(run: Path, weights: Weights) -> None:
    """Refuses the online weights of a run of this project, of which only the EMA is read.

    Raises:
        WeightsError: they are asked for.
    """
    if weights != "ema":
        raise WeightsError(
            f"weights: got {weights!r}; expected 'ema', what is read of a run ({run})"
        )
