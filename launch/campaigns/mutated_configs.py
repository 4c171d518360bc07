r"""Campaign: command lines and configs that are wrong at random must end in one line and status 2.

    python launch/campaigns/mutated_configs.py --cases 1000 --seed 0 [--show 20]

Each case changes a right command line of `rae_dit.main` or `rae_dit.plan`, a config file, or the
config.json of a run: types, ranges, unknown fields and flags, odd text, NaN, huge numbers, paths. A
case is a finding when it ends in anything but one line and status 2, when the line is about an
error that no message of ours explains, or when it is accepted with another value than was given.
Everything happens in this process; nothing is trained. Exit status 1 if anything was found.
"""

import argparse
import ast
import collections
import contextlib
import io
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from absl import flags

from configs import default
from rae_dit import plan, request
from rae_dit.config import Config, ConfigError, from_config_dict, to_dict
from rae_dit.workdir import read_config

ROOT = Path(__file__).resolve().parents[2]
ODD = (
    *("", " ", "0", "-1", "1", "2", "7", "1.5", "-0.0", "1e400", "nan", "inf", "-inf", "1_000"),
    *("0x10", "007", "1e3", "99999999999999999999999999", "True", "false", "None", "none", "null"),
    *("()", "(1,)", "(1,2)", "(1,2,3)", "(1", "1,2", "[1, 2]", "((1, 2), (3, 4))", "(1, 'a')"),
    *("{}", "{'a': 1}", "'a'", '"', "'", "__import__('os').system('false')", "lambda: 1", "*", "#"),
    *("~", "~/x", "/", "/dev/null", "/proc/self/mem", "gs://bucket/x", "a/../..", "x" * 5000),
    *(
        "\u00e9\u4e2d\U0001f600",
        "a\tb",
        "a\nb",
        "\x1b[31m",
        "%s",
        "{0}",
        "$HOME",
        "=",
        "a=b",
        "--x",
    ),
)
FLAGS = (
    *("--mode=trian", "--mode=", "--workdir=", "--workdir", "--workdir=/dev/null/x", "--nothing"),
    *("--workdir=gs://a/b", "--config=", "--config=/", "--config=nowhere.py", "stray", "-", "--"),
    *(
        "--num_processes=0",
        "--num_processes=x",
        "--process_id=-1",
        "--num_processes=2",
        "--debug=7",
    ),
    *(
        "--coordinator_address=x",
        "--config.=1",
        "--config..=1",
        "--config.optim",
        "--noconfig.seed",
    ),
    *("--config.seed", "--nodebug=1", "--flagfile=/nowhere", "--flagfile=/", "--workdir=a\nb"),
    *("--topology=", "--topology=v5e", "--topology=cpu:x", "--output=/", "--largest_batch=maybe"),
    *("--config.optim.max_steps.x=1", "--config.optim[0]=1", "--config.ddt.depth[0]=x"),
)
FILES = (
    *("", "x = 1", "def get_config(:", "\x00", "import nowhere", "raise KeyError('x')", "\u00e9 ="),
    *(
        "def get_config():\n    return 1 / 0",
        "def get_config():\n    return None",
        "get_config = 3",
    ),
    *("def get_config(x, y):\n    return x", "def get_config():\n    return get_config()"),
    "import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict()",
    "import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict({'optim': 3})",
    "import sys\ndef get_config():\n    sys.exit(3)",
)
JSON = (None, True, 0, -1, 1.5, 1e400, "", "x", [], [1], {}, {"a": 1}, [[1, 2]], 10**40, "\ud800")


def fields(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Returns the fields of nested sections by dotted path."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        below = f"{path}{name}"
        found |= fields(value, f"{below}.") if isinstance(value, dict) else {below: value}
    return found


PATHS = tuple(fields(default.get_config().to_dict()))


def misspell(name: str, rng: random.Random) -> str:
    """Changes a letter or two."""
    place = rng.randrange(len(name))
    return rng.choice((name[:place] + name[place + 1 :], f"{name}x", name.upper(), name[:place]))


def command_line(rng: random.Random, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Makes a command line with mistakes; returns it and the values of its fields."""
    arguments = [f"--config={ROOT}/configs/{rng.choice(('dit_dummy', 'default', 'dit_dino'))}.py"]
    arguments.append(f"--workdir={folder}/run")
    given: dict[str, str] = {}
    kind = rng.random()
    if kind < 0.15:
        arguments.insert(rng.randint(0, 2), rng.choice(FLAGS))
    elif kind < 0.3:
        file = folder / "config.py"
        file.write_text(rng.choice(FILES))
        arguments[0] = f"--config={file}"
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        path, value = rng.choice(PATHS), rng.choice(ODD)
        if rng.random() < 0.15:
            path = misspell(path, rng)
        if rng.random() < 0.1:
            arguments += [f"--config.{path}", value]
        else:
            arguments.append(f"--config.{path}={value}")
        given[path] = value
    if rng.random() < 0.05:
        rng.shuffle(arguments)
        given = {}
    return arguments, given


def meant(text: str, value: Any) -> bool:
    """Tells whether a field's value is what a text says."""
    if isinstance(value, str):
        return text in (value, "~", "~/x") or value.endswith(text)
    if isinstance(value, bool):
        return value == (text.lower() in ("true", "t", "1", "yes"))
    with contextlib.suppress(ValueError, SyntaxError):
        if isinstance(value, int | float):
            return float(value) == float(int(text, 0) if text.startswith("0x") else float(text))
        read = ast.literal_eval(text)
        return value == (tuple(read) if isinstance(read, tuple | list) else (read,))
    return False


def try_command(rng: random.Random, folder: Path) -> tuple[str, str]:
    """Parses a command line as the program would; returns the outcome and what was said."""
    module = rng.choice((request, request, plan))
    arguments, given = command_line(rng, folder)
    argv = ["rae_dit", *arguments, *(["--topology=cpu:2"] if module is plan else [])]
    if module is plan:
        argv = [word for word in argv if not word.startswith("--workdir=")]
    values = flags.FlagValues()
    module.define_flags(values)
    told, before = io.StringIO(), sys.argv
    sys.argv = argv  # where ml_collections looks for overrides
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            read = module.read_request(argv, values)
    except SystemExit as end:
        return judge(end.code, told.getvalue()), f"{argv}: {told.getvalue()}"
    except BaseException as error:
        return "traceback", f"{argv}: {error!r}"
    finally:
        sys.argv = before
    found = fields(to_dict(read.config))
    for path, text in given.items():
        value = tuple(found[path]) if isinstance(found[path], list) else found[path]
        if not meant(text, json_tuples(value)):
            return "another value", f"{argv}: {path} is {found[path]!r}"
    return "accepted", f"{argv}"


def json_tuples(value: Any) -> Any:
    """Returns nested lists as tuples."""
    return tuple(map(json_tuples, value)) if isinstance(value, list | tuple) else value


def judge(code: object, text: str) -> str:
    """Names the outcome of a program that ended with a code and a text."""
    if code != 2:
        return "wrong status"
    if len(text.splitlines()) != 1 or not text.startswith("rae_dit: "):
        return "not one line"
    return "unexplained" if "; traceback in " in text else "refused"


def try_run(rng: random.Random, folder: Path) -> tuple[str, str]:
    """Reads the config.json of a run, with mistakes; returns the outcome and what was said."""
    values = json.loads(json.dumps(to_dict(from_config_dict(default.get_config()))))
    for _ in range(rng.randint(1, 2)):
        *sections, name = rng.choice(PATHS).split(".")
        holder = values
        for section in sections:
            holder = holder[section] if isinstance(holder.get(section), dict) else {}
        match rng.randrange(4):
            case 0:
                holder.pop(name, None)
            case 1:
                holder[misspell(name, rng)] = rng.choice(JSON)
            case 2 if sections:
                values[sections[0]] = rng.choice(JSON)
            case _:
                holder[name] = rng.choice(JSON)
    text = json.dumps(values)
    if rng.random() < 0.2:
        text = text[: rng.randrange(len(text))]
    (folder / "config.json").write_text(text, errors="surrogatepass")
    try:
        config = read_config(folder)
    except ConfigError as error:
        outcome = "refused" if "\n" not in str(error) else "not one line"
        return outcome, str(error)
    except BaseException as error:
        return "traceback", f"config.json: {error!r}"
    return "accepted" if isinstance(config, Config) else "another value", "config.json"


def run(cases: int, seed: int) -> dict[str, list[str]]:
    """Tries so many cases; returns what was said, by outcome."""
    found: dict[str, list[str]] = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(cases):
            rng = random.Random(f"{seed}/{number}")
            attempt = try_run if rng.random() < 0.3 else try_command
            outcome, text = attempt(rng, Path(folder))
            found[outcome].append(f"case {number}: {text.strip()}")
    return found


def report() -> None:
    """Runs the campaign of the command line and prints the counts and the findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=20, help="findings of each kind to print")
    arguments = parser.parse_args()
    found = run(arguments.cases, arguments.seed)
    print({outcome: len(texts) for outcome, texts in sorted(found.items())})
    findings = {kind: texts for kind, texts in found.items() if kind not in ("accepted", "refused")}
    for kind, texts in findings.items():
        for text in texts[: arguments.show]:
            print(f"{kind}: {text[:600]}")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    report()
