"""Command line to list the tensors of weight files and to convert them.

    python -m rae_dit.weights inspect FILE [FILE ...]
    python -m rae_dit.weights export-ddt SOURCE TARGET.pt|.safetensors
    python -m rae_dit.weights export-decoder SOURCE TARGET.pt|.safetensors
    python -m rae_dit.weights export-diffusers RUN TARGET
    python -m rae_dit.weights export-diffusers TARGET --encoder=… --decoder=… [--stats=…]
    python -m rae_dit.weights publish RUN NAME [--license=…] [--output=DIR] [--upload]

SOURCE is anything `load_ddt` or `load_rae(decoder=…)` opens: a released file or a run of rae_dit.
RUN is a run of rae_dit. Floats become float32, and every tensor is checked on the way. Of a
training checkpoint the EMA is taken, or with --weights=online what it averages. A header in the
file says what tensors do not tell (heads, depths); beside a decoder goes a config.json, too.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

import numpy as np

from rae_dit.api import decoder_pixels_of, load_ddt, load_decoder, load_rae
from rae_dit.architecture import Pixels, Prediction
from rae_dit.checkpoint.manager import CheckpointError
from rae_dit.config import ConfigError
from rae_dit.failures import ending_in_one_line
from rae_dit.models.decoder import Decoder
from rae_dit.publish import publish
from rae_dit.storage.errors import StorageError
from rae_dit.storage.files import write_json
from rae_dit.storage.places import local_place, place
from rae_dit.weights.architecture import Pair
from rae_dit.weights.config_file import refuse_other
from rae_dit.weights.diffusers_export import save_diffusers
from rae_dit.weights.directory import single_file
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.header import ddt_facts
from rae_dit.weights.official import decoder_config, export_ddt, export_decoder
from rae_dit.weights.publish import describe_upload, upload
from rae_dit.weights.state_dict import Weights
from rae_dit.weights.tensor_file import open_tensors, save_tensors
from rae_dit.workdir import find_run


def command_line() -> argparse.ArgumentParser:
    """Returns what reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rae_dit.weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="list the tensors of files")
    inspect.add_argument("files", nargs="+", type=place)
    for what in ("ddt", "decoder"):
        command = commands.add_parser(f"export-{what}", help=f"write a {what} in official form")
        command.add_argument("source")
        command.add_argument("target", type=place)
    ddt = commands.choices["export-ddt"]
    ddt.add_argument("--input-size", type=int, help="side of the latent, if SOURCE does not tell")
    for name in ("--depth", "--num-heads"):
        ddt.add_argument(name, type=pair, help="BACKBONE,HEAD, if SOURCE does not tell")
    ddt.add_argument("--base-depth", type=int, help="blocks before the second head of RAEv2")
    ddt.add_argument(
        "--prediction", choices=get_args(Prediction), help="outputs, if SOURCE does not tell"
    )
    diffusers = commands.add_parser("export-diffusers", help="write an AutoencoderRAE directory")
    diffusers.add_argument("paths", nargs="+", metavar="[RUN] TARGET")
    diffusers.add_argument("--encoder")
    diffusers.add_argument("--decoder")
    diffusers.add_argument("--stats")
    diffusers.add_argument("--encoder-input-size", type=int)
    publishing = commands.add_parser("publish", help="make a directory for the hub")
    publishing.add_argument("source", metavar="RUN")
    publishing.add_argument("name", metavar="NAME", help="of the model: name or owner/name")
    publishing.add_argument("--license", default="", help="of the weights, such as mit")
    publishing.add_argument("--output", help="directory; default: published/NAME")
    publishing.add_argument("--with-encoder", action="store_true", help="publish its weights, too")
    publishing.add_argument("--no-samples", action="store_true", help="draw no picture")
    publishing.add_argument("--upload", action="store_true", help="send it to the hub")
    publishing.add_argument("--private", action="store_true", help="as a private repository")
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="print the traceback of an error")
        command.add_argument(
            "--weights", choices=get_args(Weights), default="ema", help="of a training checkpoint"
        )
    return parser


def main() -> None:
    """Parses the command line and runs a command."""
    own = (WeightsError, ConfigError, CheckpointError, StorageError)
    with ending_in_one_line(own, None, debug="--debug" in sys.argv):
        run(command_line().parse_args())


def pair(text: str) -> Pair:
    """Reads two whole numbers such as "12,16"."""
    first, second = text.split(",")
    return int(first), int(second)


def run(arguments: argparse.Namespace) -> None:
    """Runs the command that was chosen."""
    match arguments.command:
        case "inspect":
            for path in arguments.files:
                list_tensors(single_file(path), arguments.weights)
        case "export-ddt":
            ddt = load_ddt(
                arguments.source,
                input_size=arguments.input_size,
                depth=arguments.depth,
                num_heads=arguments.num_heads,
                base_depth=arguments.base_depth,
                prediction=arguments.prediction,
                weights=arguments.weights,
            )
            facts = {"ddt": ddt_facts(ddt.architecture)}
            save_tensors(arguments.target, export_ddt(ddt), facts)
        case "export-decoder":
            decoder = load_decoder(arguments.source, weights=arguments.weights)
            write_decoder(decoder, arguments.target, decoder_pixels_of(arguments.source))
        case "export-diffusers":
            parts = (arguments.encoder, arguments.decoder, arguments.stats)
            source, target = run_and_target(arguments.paths)
            if source and any(parts):
                raise WeightsError("RUN: got parts besides; expected one or the other")
            if not source and not (arguments.encoder and arguments.decoder):
                raise WeightsError("RUN: got none; expected a run, or --encoder and --decoder")
            rae = load_rae(
                source,
                encoder=arguments.encoder,
                decoder=arguments.decoder,
                stats=arguments.stats,
                encoder_input_size=arguments.encoder_input_size,
                weights=arguments.weights,
            )
            save_diffusers(rae, target)
        case "publish":
            publish_run(arguments)


def publish_run(arguments: argparse.Namespace) -> None:
    """Makes the directory; sends it to the hub only if that is asked for.

    Raises:
        WeightsError: an upload without a license, or what `publish` raises.
    """
    if arguments.weights != "ema":
        raise WeightsError(f"--weights: got {arguments.weights!r}; expected 'ema', of a run")
    if arguments.upload and not (arguments.license and "/" in arguments.name):
        raise WeightsError("--upload: got no --license or no owner/name; expected both")
    output = arguments.output and local_place(arguments.output, "--output")
    directory = publish(
        arguments.source,
        arguments.name,
        output or Path("published", arguments.name),
        license=arguments.license,
        with_encoder=arguments.with_encoder,
        samples=not arguments.no_samples,
    )
    print(f"{directory}:\n{describe_upload(directory, arguments.name)}")
    if arguments.upload:
        print(upload(directory, arguments.name, private=arguments.private))


def run_and_target(paths: list[str]) -> tuple[str | None, Path]:
    """Returns the run, if there is one, and the target; the old order, TARGET RUN, is understood.

    Raises:
        WeightsError: there are more paths.
    """
    match paths:
        case [target]:
            return None, place(target)
        case [first, second] if find_run(second) and not find_run(first):
            return second, place(first)
        case [first, second]:
            return first, place(second)
    raise WeightsError(f"export-diffusers: got {len(paths)} paths; expected [RUN] TARGET")


def write_decoder(decoder: Decoder, target: Path, pixels: Pixels | None) -> None:
    """Writes the official state dict, and beside it the config.json that tells the heads.

    Args:
        decoder: the decoder.
        target: the file.
        pixels: what its outputs are, for the header; None if it is not known.

    Raises:
        WeightsError: a config.json of something else is there already.
    """
    path, config = target.parent / "config.json", decoder_config(decoder)
    refuse_other(path, config)
    told = {} if pixels is None else {"pixels": pixels}
    save_tensors(target, export_decoder(decoder), {"decoder": config} | told)
    write_json(path, config)


def list_tensors(path: Path, weights: Weights) -> None:
    """Prints name, shape, dtype and largest magnitude of every tensor, and their total."""
    tensors = open_tensors(path, weights)
    total = 0
    for name in tensors:
        tensor = tensors[name]
        total += tensor.size
        largest = np.abs(tensor.astype(np.float64)).max(initial=0)
        print(f"{name:60} {tensor.shape!s:24} {tensor.dtype!s:9} |x| <= {largest:.4g}")
    print(f"{path}: {len(tensors)} tensors, {total:,} numbers")


if __name__ == "__main__":
    main()
