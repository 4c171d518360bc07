"""Command line: overrides arrive, mistakes end with one line and status 2 before jax is there."""

import importlib
import os
import pathlib
import re
import subprocess
import sys
import types
from collections.abc import Callable
from contextlib import nullcontext

import pytest
from absl import flags

from rae_dit import main as command
from rae_dit.config import ConfigError
from rae_dit.request import Request, define_flags
from rae_dit.request import parse as parse_request
from rae_dit.storage.errors import StorageError

ROOT = pathlib.Path(__file__).parent.parent
DUMMY = f"--config={ROOT}/configs/dit_dummy.py"
WORKDIR = "--workdir=runs/a"
Parse = Callable[..., Request]

# Runs the command line in a new interpreter, then tells which heavy modules it imported.
PROBE = """
import runpy, sys
sys.argv = ["rae_dit", *sys.argv[1:]]
try:
    runpy.run_module("rae_dit.main", run_name="__main__")
finally:
    print("imported:", *[name for name in ("jax", "tensorflow", "torch") if name in sys.modules])
"""


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Parse:
    def parse_arguments(*arguments: str) -> Request:
        argv = ["rae_dit", *arguments]
        monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks for overrides
        values = flags.FlagValues()
        define_flags(values)
        return parse_request(argv, values)

    return parse_arguments


def probe(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", PROBE, *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_defaults(parse: Parse) -> None:
    request = parse(DUMMY, WORKDIR)
    assert request.mode == "train"
    assert request.workdir == pathlib.Path("runs/a")
    assert request.config.optim.max_steps == 20


def test_home_is_expanded_in_every_path(
    parse: Parse, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text(
        "from configs import dit_dummy\n\n\n"
        "def get_config():\n"
        "    config = dit_dummy.get_config()\n"
        "    config.data.update({'source': 'folder', 'path': '~/images'})\n"
        "    return config\n"
    )
    request = parse(
        "--config=~/mine.py",
        "--workdir=~/runs/a",
        "--config.data.validation_path=~/val",
        "--config.sample.guide_checkpoint=",
        "--config.encoder.statistics=runs/~/x.npz",
    )
    config = request.config
    assert request.workdir == tmp_path / "runs" / "a"
    assert config.data.path == str(tmp_path / "images")
    assert config.data.validation_path == str(tmp_path / "val")
    assert config.encoder.statistics == "runs/~/x.npz"


def test_overrides_arrive(parse: Parse) -> None:
    config = parse(
        DUMMY,
        WORKDIR,
        "--mode=sample",
        "--config.optim.learning_rate=3e-4",
        "--config.optim.max_steps",
        "7",
        "--config.sample.cfg_interval=(0.1, 1.0)",
        "--config.ddt.depth=(1,1)",
        "--config.flow.shift=3.5",
        "--config.checkpoint.keep_every=20",
        "--config.sample.labels=0,2-3",
        "--noconfig.ddt.use_rope",
        "--config.data.flip=false",
    ).config
    assert config.optim.learning_rate == 3e-4
    assert config.optim.max_steps == 7
    assert config.sample.cfg_interval == (0.1, 1.0)
    assert config.ddt.depth == (1, 1)
    assert config.flow.shift == 3.5
    assert config.checkpoint.keep_every == 20
    assert config.sample.labels == "0,2-3"
    assert (config.ddt.use_rope, config.data.flip) == (False, False)


def test_whole_number_for_a_float(parse: Parse) -> None:
    config = parse(DUMMY, WORKDIR, "--config.sample.cfg_scale=2").config
    assert repr(config.sample.cfg_scale) == "2.0"


@pytest.mark.parametrize(
    ("arguments", "start", "end"),
    [
        (["--config.optim.learning_rat=1"], "optim.learning_rat: got '1';", "optim.learning_rate?"),
        (["--config.optm.beta1", "1"], "optm.beta1: got '1';", "did you mean optim.beta1?"),
        (["--noconfig.data.flp"], "data.flp: got ", "did you mean data.flip?"),
        (["--config.ddt.depth[0]=3"], "ddt.depth[0]: got '3';", "did you mean ddt.depth?"),
        (["--config.optim.max_steps=abc"], "optim.max_steps: got 'abc';", "an int >= 1"),
        (["--config.optim.max_steps", "1.5"], "optim.max_steps: got '1.5';", "an int >= 1"),
        (["--config.optim.max_steps=0"], "optim.max_steps: got 0;", "an int >= 1"),
        (["--config.data.flip=maybe"], "data.flip: got 'maybe';", "True or False"),
        (["--config.flow.shift=none"], "flow.shift: got 'none';", "expected a finite float > 0"),
        (["--config.sample.method=huen"], "sample.method: got 'huen';", "did you mean 'heun'?"),
        (["--config.sample.cfg_interval=(1"], "sample.cfg_interval: got ", "float in [0, 1]"),
        (["--config.sample.cfg_interval=1"], "sample.cfg_interval: got (1,);", "in [0, 1]"),
        (["--config.sample.cfg_interval=(0,a)"], "sample.cfg_interval: got ", "in [0, 1]"),
        (["--config.ddt.depth=(1,1.5)"], "ddt.depth[1]: got 1.5;", "an int >= 1"),
        (["--config.optim=3"], "optim: got '3';", "max_rollbacks"),
        (["optim.max_steps=3"], "unexpected argument 'optim.max_steps=3';", "field=value"),
    ],
)
def test_wrong_override(parse: Parse, arguments: list[str], start: str, end: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(DUMMY, WORKDIR, *arguments)
    message = str(caught.value)
    assert message.startswith(start)
    assert message.endswith(end)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("arguments", "start", "end"),
    [
        ([DUMMY], "--workdir: missing;", "runs/a"),
        ([], "--config: missing;", "configs/dit_digits.py"),
        ([DUMMY, "--workdir=s3://a/b"], "--workdir: got 's3://a/b';", "(docs/many_hosts.md)"),
        ([DUMMY, "--config.stats.output=hf://b/c.npz", WORKDIR], "stats.output: got", "mounted"),
        ([DUMMY, f"--workdir={__file__}"], "--workdir: got ", "is not writable"),
        ([DUMMY, f"--workdir={__file__}/a/b"], "--workdir: got ", "is not writable"),
        ([WORKDIR], "--config: missing;", "configs/dit_digits.py"),
        ([WORKDIR, "--config.seed=1"], "--config: missing;", "configs/dit_digits.py"),
        ([WORKDIR, DUMMY.replace("dummy", "dumy")], "--config: got ", "configs/dit_dummy.py?"),
        ([WORKDIR, "--config", "nowhere/x.py"], "--config: got 'nowhere/x.py';", "a config file"),
    ],
)
def test_wrong_paths(parse: Parse, arguments: list[str], start: str, end: str) -> None:
    with pytest.raises((ConfigError, StorageError)) as caught:
        parse(*arguments)
    message = str(caught.value)
    assert message.startswith(start)
    assert message.endswith(end)
    assert "\n" not in message


def test_only_sampling_leaves_a_workdir_as_it_is(
    parse: Parse, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    workdir = f"--workdir={tmp_path}"
    for mode in ("train", "probe", "stats", "evaluate", "reconstruct", "sweep"):
        with pytest.raises(ConfigError, match=r"^--workdir: got .* is not writable$"):
            parse(DUMMY, workdir, f"--mode={mode}")
    assert parse(DUMMY, workdir, "--mode=sample").workdir == tmp_path
    assert parse(DUMMY, f"{workdir}/new", "--mode=sample").workdir == tmp_path / "new"


def test_config_file_that_returns_nothing(parse: Parse, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "nothing.py"
    file.write_text("def get_config():\n    return {}\n")
    with pytest.raises(ConfigError, match=r"get_config\(\) returned dict; expected a ConfigDict"):
        parse(f"--config={file}", WORKDIR)


@pytest.mark.parametrize("argument", ["--mode=trian", "--wrokdir=x"])
def test_wrong_flag(parse: Parse, argument: str) -> None:
    with pytest.raises(flags.Error) as caught:
        parse(DUMMY, WORKDIR, argument)
    assert "\n" not in str(caught.value)


def test_mistake_ends_with_one_line_before_jax() -> None:
    done = probe(DUMMY, WORKDIR, "--config.optim.learning_rat=1")
    assert done.returncode == 2
    assert done.stderr.startswith("rae_dit: optim.learning_rat: got '1'")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == "imported:\n"


def test_unknown_flag_ends_with_one_line_before_jax() -> None:
    done = probe(DUMMY, WORKDIR, "--wrokdir=x")
    assert done.returncode == 2
    assert done.stderr == "rae_dit: Unknown command line flag 'wrokdir'. Did you mean: workdir ?\n"
    assert done.stdout == "imported:\n"


def test_help_imports_nothing_heavy() -> None:
    done = probe("--help")
    assert done.returncode == 0
    assert "--workdir" in done.stdout
    assert "imported:\n" in done.stdout


@pytest.mark.parametrize(
    ("mode", "module", "act"),
    [
        ("train", "rae_dit.modes.train", "train"),
        ("sample", "rae_dit.modes.sample", "sample"),
        ("evaluate", "rae_dit.modes.evaluate", "evaluate"),
        ("reconstruct", "rae_dit.modes.reconstruct", "reconstruct"),
        ("stats", "rae_dit.modes.stats", "stats"),
        ("probe", "rae_dit.modes.probe", "probe"),
        ("sweep", "rae_dit.modes.sweep", "sweep"),
    ],
)
def test_main_calls_one_act(
    parse: Parse, monkeypatch: pytest.MonkeyPatch, mode: str, module: str, act: str
) -> None:
    calls: list[tuple[object, ...]] = []
    names = ("sample", "evaluate", "reconstruct", "stats", "probe", "sweep")
    acts = [f"modes.{name}" for name in names]
    for name in ("modes.train", *acts):
        monkeypatch.setitem(sys.modules, f"rae_dit.{name}", types.ModuleType(name))
    monkeypatch.setattr(
        sys.modules[module],
        act,
        lambda *arguments, **started: calls.append(arguments),
        raising=False,
    )
    monkeypatch.setattr(command, "initialize", lambda place: None)
    request = parse(DUMMY, WORKDIR, f"--mode={mode}")
    command.main(request)
    assert calls == [(request.config, pathlib.Path("runs/a"))]


def test_devices_that_do_not_fit(
    parse: Parse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "initialize", lambda place: None)
    request = parse(DUMMY, WORKDIR, "--config.sharding.fsdp=1000")
    with pytest.raises(SystemExit) as caught:
        command.main(request)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("rae_dit: sharding.fsdp: got 1000; expected a divisor of")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("rae_dit.training.history", "DivergedError"),
        ("rae_dit.data.position", "ChangedDataError"),
        ("rae_dit.data.bad_images", "BadShareError"),
        ("rae_dit.checkpoint.manager", "CheckpointError"),
        ("rae_dit.sampling.generate", "NotFiniteError"),
    ],
)
def test_a_run_that_cannot_go_on_says_why_in_one_line(
    parse: Parse,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: str,
    name: str,
) -> None:
    error = getattr(importlib.import_module(module), name)

    def end(request: Request, **devices: int) -> None:
        raise error("the reason")

    monkeypatch.setattr(command, "initialize", lambda place: None)
    monkeypatch.setattr(command, "run_mode", end)
    with pytest.raises(SystemExit) as caught:
        command.main(parse(DUMMY, WORKDIR))
    assert caught.value.code == 2
    assert capsys.readouterr().err == "rae_dit: the reason\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(28, "No space left on device", "/x"),
            r"got OSError: .* '/x'; expected free space",
        ),
        (FileNotFoundError(2, "No such file", "/x"), "got FileNotFoundError: .*; expected a path"),
        (ImportError("No module named 'clu'"), "got ImportError: .*; expected the packages of req"),
        (KeyError("reshape_to_2d"), "got KeyError: 'reshape_to_2d'; expected none here; .* a bug"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of\n  memory"), "Out of memory; expected a smaller"),
        (ValueError("num_heads: got 5; expected 4"), "num_heads: got 5; expected 4; traceback in"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_an_error_of_a_library_is_one_line_and_a_traceback_in_a_file(
    parse: Parse,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
    error: Exception,
    line: str,
    *,
    debug: bool,
) -> None:
    def end(request: Request, **devices: int) -> None:
        raise error

    monkeypatch.setattr(command, "initialize", lambda place: None)
    monkeypatch.setattr(command, "run_mode", end)
    request = parse(DUMMY, f"--workdir={tmp_path}", *["--debug"] * debug)
    with pytest.raises(SystemExit) as caught:
        command.main(request)
    assert caught.value.code == 2
    *before, last = capsys.readouterr().err.splitlines()
    assert re.search(line, last), last
    assert last.startswith("rae_dit: ")
    assert bool(before) == debug
    (file,) = tmp_path.glob("traceback-*.log")
    assert last.endswith(f"; traceback in {file}")
    assert "in end\n    raise error\n" in file.read_text()


def test_several_processes_report_errors_as_one_does(
    parse: Parse,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
) -> None:
    """`EndTogether` gets the function that makes the line of an error, and ends the process."""
    given = []
    monkeypatch.setattr(
        command, "EndTogether", lambda *arguments: given.append(arguments) or nullcontext()
    )
    monkeypatch.setattr(command, "initialize", lambda place: None)
    monkeypatch.setattr(command, "run_mode", lambda request, **devices: None)
    for debug in ([], ["--debug"]):
        command.main(parse(DUMMY, f"--workdir={tmp_path}", *debug))
    for (own, report), printed in zip(given, (0, 2), strict=True):
        assert ConfigError in own
        assert report(ConfigError("the reason")) == "the reason"
        assert not list(tmp_path.iterdir())
        line = report(KeyError("x"))
        (file,) = tmp_path.iterdir()
        assert line.endswith(f"; traceback in {file}")
        assert line.startswith("rae_dit: got KeyError: 'x'; expected none here")
        assert capsys.readouterr().err.count("Error: ") == printed
        file.unlink()


def test_debug_prints_the_traceback_of_our_own_errors_too(
    parse: Parse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "initialize", lambda place: None)
    with pytest.raises(SystemExit):
        command.main(parse(DUMMY, WORKDIR, "--config.sharding.fsdp=1000", "--debug"))
    *before, last = capsys.readouterr().err.splitlines()
    assert last.startswith("rae_dit: sharding.fsdp: got 1000;")
    assert before[0].startswith("Traceback")


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("import nowhere_to_be_found", "--config: got '{}', which ended in ModuleNotFoundError"),
        ("def get_config():\n    return 1 / 0", "--config: got '{}', which ended in ZeroDivision"),
        ("def get_config(:", "--config: got '{}': SyntaxError"),
        ("\x00", "--config: got '{}': "),
        ("x = 1", "--config: got '{}': "),
        ("get_config = 3", "--config: got '{}', which ended in TypeError: 'int' object"),
    ],
)
def test_a_config_file_that_fails_is_one_line(
    parse: Parse, tmp_path: pathlib.Path, text: str, start: str
) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        parse(f"--config={file}", WORKDIR)
    assert str(caught.value).startswith(start.format(file))
    assert "\n" not in str(caught.value)
