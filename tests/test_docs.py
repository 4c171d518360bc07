"""Links, file names, config fields and commands in README.md, docs/ and config docstrings."""

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest
from absl import flags

from configs import default
from rae_dit.plan import define_flags as define_plan_flags
from rae_dit.request import define_flags, parse

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
TEXTS = {path.relative_to(ROOT): path.read_text() for path in PAGES}
TEXTS |= {
    path.relative_to(ROOT): ast.get_docstring(ast.parse(path.read_text())) or "" for path in CONFIGS
}
FOLDERS = [
    *(ROOT, ROOT / "configs", ROOT / "docs", ROOT / "launch" / "benchmarks"),
    *(ROOT / "rae_dit", ROOT / "rae_dit" / "evaluation"),
]
# Written by a run; of other repositories.
ELSEWHERE = {"sweep.md", "dinov2/eval/linear.py", "train.py", "train_stage1.py"}


def commands(text: str, module: str) -> list[str]:
    """Arguments of the complete `python -m module` commands in a text, with shell variables set."""
    text = re.sub(r"\\\n\s*", " ", text)
    for name, value in re.findall(r'^([A-Z])="([^"\n]+)"$', text, re.MULTILINE):
        text = text.replace(f"${name}", value)
    found = re.findall(rf"^ *(?:COMMAND +)?python -m {module} (.+)$", text, re.MULTILINE)
    return [line.split("   (")[0] for line in found if "--config=" in line and "…" not in line]


MAIN = {
    f"{name} {number}": line
    for name, text in TEXTS.items()
    for number, line in enumerate(commands(text, r"rae_dit\.main"))
}
# All but the mistake that docs/training.md shows.
RIGHT = {name: line for name, line in MAIN.items() if "learning_rat=" not in line}
PLAN = [line for text in TEXTS.values() for line in commands(text, r"rae_dit\.plan")]


@pytest.mark.parametrize("page", [path for path in TEXTS if path.suffix == ".md"], ids=str)
def test_every_relative_link_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", TEXTS[page])
    targets = [(one or two).split("#")[0] for one, two in links]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (ROOT / page.parent / target).exists()] == []


@pytest.mark.parametrize("page", TEXTS, ids=str)
def test_every_file_named_exists(page):
    names = set(re.findall(r"(?<![\w/.*-])([\w/]+\.(?:py|sh|md))(?![\w/*-])", TEXTS[page]))
    if page.name == "migration.md":  # its left columns name files of other repositories
        names = set(re.findall(r"`((?:configs|docs|launch)/\w+\.(?:py|sh|md))`", TEXTS[page]))
    names = {name for name in names if "NAME" not in name}
    missing = {name for name in names if not any((f / name).exists() for f in FOLDERS)}
    assert missing - ELSEWHERE == set()


@pytest.mark.parametrize("page", [path for path in TEXTS if path.suffix == ".md"], ids=str)
def test_rows_of_a_table_have_as_many_cells_as_its_header(page):
    prose = re.sub(r"^```.*?^```", "", TEXTS[page], flags=re.MULTILINE | re.DOTALL)
    for table in re.findall(r"(?:^\|.*\n)+", prose, re.MULTILINE):
        rows = [re.sub(r"`[^`]*`", "", row).strip().strip("|") for row in table.splitlines()]
        assert {row.count("|") for row in rows} == {rows[0].count("|")}, table


@pytest.mark.parametrize("page", TEXTS, ids=str)
def test_every_config_field_named_exists(page):
    fields = {
        f"{section}.{field}" if isinstance(value, dict) else section
        for section, value in default.get_config().to_dict().items()
        for field in (value if isinstance(value, dict) else [""])
    }
    named = set(re.findall(r"--config\.([a-z_0-9]+(?:\.[a-z_0-9]+)?)", TEXTS[page]))
    named -= {"optim.learning_rat", "section.field", "field"}  # a mistake shown; placeholders
    assert named - fields == set()


@pytest.mark.parametrize("command", RIGHT.values(), ids=RIGHT)
def test_every_command_is_accepted(command, monkeypatch):
    argv = ["rae_dit.main", *shlex.split(command)]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks for overrides
    values = flags.FlagValues()
    define_flags(values)
    if "--help_config" in command:
        with pytest.raises(SystemExit) as end:
            parse(argv, values)
        assert end.value.code == 0
        return
    assert "runs" in parse(argv, values).workdir.parts  # first, or below a bucket


def test_flags_of_plan_commands_exist():
    values = flags.FlagValues()
    define_plan_flags(values)
    used = {flag for line in PLAN for flag in re.findall(r"--(?:no)?([a-z_]+)(?==| |$)", line)}
    assert {"config", "topology"} <= used
    assert used - set(values) == set()


def test_flags_of_scripts_exist():
    used = {}
    for text in TEXTS.values():
        for script, line in re.findall(
            r"python (launch/\S+\.py)([^`\n]*)", text.replace("\\\n", "")
        ):
            used.setdefault(script, set()).update(re.findall(r"--(?!config)([a-z_]+)", line))
    assert len(used) >= 5
    for script, names in used.items():
        source = (ROOT / script).read_text()
        assert {name for name in names if not re.search(rf'"(?:--)?{name}"', source)} == set()


def test_commands_were_found():
    assert len(MAIN) > 25
    assert len(PLAN) >= 1
