r"""Command line of the demo page.

    python -m rae_dit.demo RUN [RUN ...]            a page at http://127.0.0.1:7860
    python -m rae_dit.demo FILE --encoder=… --decoder=… [--stats=…]
    python -m rae_dit.demo RUN --write=DIR [--classes=0,3 --number=8 --steps=50 …]

RUN is a run of stage 2 or 1, its checkpoints, one step, or a directory of runs such as
runs/quickstart; FILE a DiT^DH that `load_ddt` opens. With --write no page is served: the images go
to DIR, the same as the page shows.
"""

import argparse
import logging
import os
from typing import get_args

from rae_dit.architecture import Pixels
from rae_dit.compiler import use_compile_cache
from rae_dit.config.check import invalid_value
from rae_dit.demo.catalog import Catalog
from rae_dit.demo.drawing import OWN
from rae_dit.demo.images import write_images
from rae_dit.demo.model import Model
from rae_dit.demo.parts import Parts
from rae_dit.demo.runs import RunsFolder
from rae_dit.demo.settings import NONE, Settings, methods, read_settings
from rae_dit.failures import ending_in_one_line
from rae_dit.storage.places import is_url, place
from rae_dit.workdir import find_run

COMPILE_CACHE = "~/.cache/rae_dit/jax"


def command_line() -> argparse.ArgumentParser:
    """Returns what reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rae_dit.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("sources", nargs="+", metavar="RUN_OR_FILE")
    parser.add_argument("--encoder", default="", help="of weights that are no run")
    parser.add_argument("--decoder", default="")
    parser.add_argument("--stats", default="")
    parser.add_argument("--encoder-input-size", type=int)
    parser.add_argument("--encoder-layers", type=numbers, default=(), metavar="N,N,...")
    parser.add_argument("--encoder-add-mean", action="store_true")
    parser.add_argument("--decoder-pixels", choices=get_args(Pixels))
    parser.add_argument("--guide", default="", help="weaker model of AutoGuidance: run or file")
    parser.add_argument("--class-names", default="", help="file of all classes' names")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    page = parser.add_argument_group("the page")
    page.add_argument("--runs", default="", help="directory of the runs to list; '' = RUN alone")
    page.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    page.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    page.add_argument("--upload-mb", type=float, default=10.0, help="largest upload")
    images = parser.add_argument_group("images without a page")
    images.add_argument("--write", metavar="DIR", help="directory to write them to")
    images.add_argument("--classes", default="", help="names, numbers, ranges; '' = all")
    images.add_argument("--number", type=int, default=8)
    images.add_argument("--seed", type=int, default=0)
    images.add_argument("--method", choices=methods(), help="default: of the model's config")
    images.add_argument("--steps", type=int)
    images.add_argument("--guidance", help="none, cfg, autoguidance or internal")
    images.add_argument("--scale", type=float)
    images.add_argument("--interval", type=interval, metavar="LOW,HIGH")
    return parser


def main() -> None:
    """Parses the command line, and serves the page or writes images."""
    arguments = command_line().parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    with ending_in_one_line(OWN, None, debug=arguments.debug):
        run(arguments)


def interval(text: str) -> tuple[float, float]:
    """Reads two numbers such as "0.1,1.0"."""
    low, high = text.split(",")
    return float(low), float(high)


def numbers(text: str) -> tuple[int, ...]:
    """Reads whole numbers such as "11,13,15"."""
    return tuple(map(int, text.split(",")))


def run(arguments: argparse.Namespace) -> None:
    """Serves the page or writes images."""
    use_compile_cache(COMPILE_CACHE)
    parts = parts_of(arguments)
    catalog = Catalog(arguments.sources, parts)
    if arguments.write:
        model = catalog.load(catalog.names()[0])
        directory = place(arguments.write)
        count = write_images(model, settings_of(model, arguments), directory)
        print(f"{count} images in {directory}")
        return
    from rae_dit.demo.page import serve  # late: only the page needs gradio

    most_bytes = round(arguments.upload_mb * 1e6)
    runs = runs_folder(arguments.runs, arguments.sources)
    serve(catalog, runs, host=arguments.host, port=arguments.port, most_bytes=most_bytes)


def parts_of(arguments: argparse.Namespace) -> Parts:
    """Returns what goes with weights that are no run."""
    return Parts(
        encoder=arguments.encoder,
        decoder=arguments.decoder,
        stats=arguments.stats,
        encoder_input_size=arguments.encoder_input_size,
        encoder_layers=arguments.encoder_layers,
        encoder_add_mean=arguments.encoder_add_mean,
        decoder_pixels=arguments.decoder_pixels,
        guide=arguments.guide,
        class_names=arguments.class_names,
    )


def settings_of(model: Model, arguments: argparse.Namespace) -> Settings:
    """Returns what the images are made with; what is not given is the model's."""
    sample = model.sample
    guided = sample.guidance if sample.cfg_scale != 1 else NONE
    return read_settings(
        model,
        classes=[arguments.classes] if arguments.classes else [],
        number=arguments.number,
        seed=arguments.seed,
        method=arguments.method or sample.method,
        steps=sample.num_steps if arguments.steps is None else arguments.steps,
        guidance=arguments.guidance or guided,
        scale=sample.cfg_scale if arguments.scale is None else arguments.scale,
        interval=arguments.interval or sample.cfg_interval,
        most=None,
    )


def runs_folder(given: str, sources: list[str]) -> RunsFolder | None:
    """Returns the runs to list: those below a directory that was given, or the given runs alone.

    Args:
        given: --runs; "" for none.
        sources: of the command line.

    Raises:
        ConfigError: --runs is no directory of this machine.
    """
    if given:
        if is_url(given) or not place(given).is_dir():
            raise invalid_value("--runs", given, "a directory of runs")
        return RunsFolder(place(given))
    local = [source for source in sources if not is_url(source) and place(source).is_dir()]
    runs = {run for source in local if (run := find_run(source)) is not None}
    if not runs:
        folder = RunsFolder(place(local[0])) if local else None
        return folder if folder is not None and folder.names() else None
    root = place(os.path.commonpath([run.parent for run in runs]))
    return RunsFolder(root, tuple(sorted(run.relative_to(root).as_posix() for run in runs)))


if __name__ == "__main__":
    main()
