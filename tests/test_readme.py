"""What the README tells people to type is accepted."""

import re
import sys
from pathlib import Path

import pytest
from absl import flags

from rae_dit.config import ConfigError
from rae_dit.main import define_flags, parse

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"`(--config=[^`]*--workdir=[^`]+)`", README)


@pytest.fixture
def parsed(monkeypatch):
    def parse_line(line):
        argv = ["rae_dit.main", *line.split()]
        monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks for overrides
        values = flags.FlagValues()
        define_flags(values)
        return parse(argv, values)

    monkeypatch.chdir(ROOT)
    return parse_line


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[0])
def test_command_is_accepted(command, parsed):
    assert parsed(command).workdir.parts[0] == "runs"


def test_there_are_commands():
    assert len(COMMANDS) >= 4


def test_the_error_shown_is_the_error_printed(parsed):
    command, printed = re.search(
        r"\$ python -m rae_dit\.main (.+)\nrae_dit: (.+)\n", README
    ).groups()
    with pytest.raises(ConfigError) as error:
        parsed(command)
    assert str(error.value) == printed


def test_every_file_it_names_exists():
    names = re.findall(r"\b(?:configs|launch|docs|rae_dit)/[\w/]+\.\w+", README)
    missing = [name for name in set(names) if not (ROOT / name).exists()]
    assert len(names) > 5
    assert missing == []


def test_every_python_file_and_folder_of_the_tree_exists():
    tree = README.split("## The house")[1].split("```")[1]
    names = re.findall(r"^  (\S+)", tree, re.MULTILINE)
    assert len(names) > 8
    for name in names:
        assert list((ROOT / "rae_dit").glob(name.rstrip("/"))), name
