r"""Fuzz test: damaged files of weights and data, and wrong configs, through the command line.

    python launch/campaigns/damaged_commands.py --weights 300 --data 300 --configs 1000

Each case runs the program as a user does, in a forked process (commands.py):

- weights: `rae_dit.weights inspect`, `rae_dit.weights export-ddt`, and `--mode=sample` of a DiT^DH,
  in torch's zip, torch's older format and safetensors, one of them damaged (damage.py);
- data: a step of training on a damaged folder, Parquet, Arrow or tar file (damaged_files.py);
- configs: a wrong command line (mutated_configs.py) with --dry_run, which opens no data.

A case must end with status 0, or with status 2 and one line of ours; whatever else is printed and
counted as failed. Exit status 1 if there was any.
"""

import argparse
import collections
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.campaigns import damage, mutated_configs
from launch.campaigns.commands import ROOT, Ended, import_all, judge, run_command
from launch.campaigns.damaged_files import CLASSES, SOURCES, Case, make

CONFIG = f"--config={ROOT}/configs/dit_dummy.py"
ONE_STEP = ["--config.optim.max_steps=1", "--config.optim.warmup_steps=0"]
DAMAGES: dict[str, tuple[str, damage.Damage]] = {
    "torch, bytes": ("a.pt", damage.damage_bytes),
    "torch, directory": ("a.pt", damage.damage_directory),
    "torch, pickle": ("a.pt", damage.damage_pickle_in_zip),
    "older torch, bytes": ("old.pt", damage.damage_bytes),
    "older torch, pickle": ("old.pt", damage.damage_old_pickle),
    "safetensors, bytes": ("a.safetensors", damage.damage_bytes),
    "safetensors, header": ("a.safetensors", damage.damage_header),
}
COMMANDS = ("inspect", "export-ddt", "sample")
Attempt = Callable[[int, Path], tuple[str, Ended]]


def write_sound(root: Path) -> None:
    """Writes a DiT^DH of the dummy config in three formats.

    Raises:
        RuntimeError: a command failed.
    """
    run, exported = root / "run", root / "a.safetensors"
    for module, arguments in (
        ("rae_dit.main", [CONFIG, f"--workdir={run}", *ONE_STEP]),
        ("rae_dit.weights", ["export-ddt", str(run), str(exported)]),
        ("rae_dit.weights", ["inspect", str(exported)]),
    ):
        last = arguments[0] == "inspect"
        prepare = partial(write_torch, exported, root) if last else lambda: None
        ended = run_command(module, arguments, root, prepare)
        if ended.status:
            raise RuntimeError(f"{module} {arguments[0]}: got {ended}; expected status 0")


def write_torch(exported: Path, root: Path) -> None:
    """Writes the tensors of a file as the training checkpoint of a torch program."""
    import torch  # noqa: TID251 - the writer of the files

    from rae_dit.weights.tensor_file import open_tensors

    tensors = open_tensors(exported)
    ema = {name: torch.tensor(tensors[name]) for name in tensors}
    content = {"ema": ema, "args": argparse.Namespace(path=Path("runs")), "steps": 3}
    torch.save(content, root / "a.pt")
    torch.save(content, root / "old.pt", _use_new_zipfile_serialization=False)


def try_weights(sound: Path, number: int, folder: Path) -> tuple[str, Ended]:
    """Opens a damaged file of weights by one of three commands."""
    kind = list(DAMAGES)[number % len(DAMAGES)]
    name, how = DAMAGES[kind]
    path = folder / name
    path.write_bytes(how((sound / name).read_bytes(), random.Random(f"{kind} {number}")))
    match command := COMMANDS[number // len(DAMAGES) % len(COMMANDS)]:
        case "inspect":
            arguments = ["inspect", str(path)]
        case "export-ddt":
            arguments = ["export-ddt", str(path), str(folder / "out.safetensors")]
        case _:
            arguments = [CONFIG, f"--workdir={folder}/run", "--mode=sample"]
            arguments += [f"--config.ddt.pretrained={path}", "--config.sample.num_steps=2"]
    module = "rae_dit.main" if command == "sample" else "rae_dit.weights"
    return f"{command}, {kind}", run_command(module, arguments, folder)


def try_data(number: int, folder: Path) -> tuple[str, Ended]:
    """Trains for one step on damaged files."""
    kind = SOURCES[number % len(SOURCES)]
    data = folder / "data"
    data.mkdir()
    path = make(Case(kind, number // len(SOURCES)), data)
    source = kind if kind in ("folder", "tar") else "huggingface"
    changes = {"source": source, "path": path, "num_classes": CLASSES, "batch_size": 2}
    arguments = [CONFIG, f"--workdir={folder}/run", *ONE_STEP, "--config.data.max_bad_share=1.0"]
    arguments += [f"--config.data.{name}={value}" for name, value in changes.items()]
    return f"train, {kind}", run_command("rae_dit.main", arguments, folder)


def try_config(number: int, folder: Path) -> tuple[str, Ended]:
    """Runs a command line with mistakes, up to what it would do."""
    arguments, _ = mutated_configs.command_line(random.Random(f"command {number}"), folder)
    return "config", run_command("rae_dit.main", [*arguments, "--dry_run"], folder)


def campaign(attempt: Attempt, first: int, cases: int) -> bool:
    """Tries so many cases; prints counts, and what failed; returns whether nothing did."""
    counts: dict[str, collections.Counter[str]] = {}
    for number in range(first, first + cases):
        folder = Path(tempfile.mkdtemp())
        kind, ended = attempt(number, folder)
        outcome = judge(ended)
        counts.setdefault(kind, collections.Counter())[outcome.partition(":")[0]] += 1
        if outcome.startswith("FAILED"):
            print(f"{kind} {number}: {outcome}", flush=True)
        shutil.rmtree(folder)
    for kind, outcomes in sorted(counts.items()):
        print(f"{kind:32} " + ", ".join(f"{n} {word}" for word, n in sorted(outcomes.items())))
    return not any(outcomes["FAILED"] for outcomes in counts.values())


def main() -> None:
    """Parses the options and runs the campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("weights", "data", "configs"):
        parser.add_argument(f"--{name}", type=int, default=0, help="cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each")
    options = parser.parse_args()
    import_all()
    fine = True
    with tempfile.TemporaryDirectory() as root:
        if options.weights:
            write_sound(Path(root))
            attempt = partial(try_weights, Path(root))
            fine = campaign(attempt, options.first, options.weights) and fine
    fine = campaign(try_data, options.first, options.data) and fine
    fine = campaign(try_config, options.first, options.configs) and fine
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
