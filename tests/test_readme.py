"""The commands, settings, file names and code on some pages of docs/ are valid."""

import re
import sys
from pathlib import Path
from typing import get_args

import pytest
from absl import flags
from support.golden_files import GOLDEN
from support.small_ddt import write_official_ddt

from rae_dit.config import ConfigError
from rae_dit.request import Mode, define_flags, parse

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MODES = (ROOT / "docs" / "modes.md").read_text()
LAYOUT = (ROOT / "docs" / "layout.md").read_text()
RELEASED = (ROOT / "docs" / "released_weights.md").read_text()
MIGRATION = (ROOT / "docs" / "migration.md").read_text()
TRAINING = (ROOT / "docs" / "training.md").read_text()
COMMANDS = re.findall(r"`(--config=[^`]*--workdir=[^`]+)`", MODES)


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


SETTINGS = set(re.findall(r'--config\.([a-z_.]+)=("[^"]*"|[^\s`"]+)', MODES + MIGRATION))
SETTINGS -= {("section.field", "value]")}  # a placeholder
COMPANY = {  # settings that need another one in configs/dit_dino.py
    "ddt.num_heads": "--config.ddt.hidden_size=(1024,1536)",
    "decoder.checkpoint": "--config.decoder.pretrained=",
    "encoder.checkpoint": "--config.encoder.pretrained=",
    "encoder.family": "--config.encoder.num_registers=0",
    "sample.guide_checkpoint": "--config.sample.guidance=autoguidance",
}


@pytest.mark.parametrize("setting", sorted(SETTINGS), ids="=".join)
def test_setting_is_accepted(setting, parsed):
    name, value = setting
    line = "--config=configs/dit_dino.py --workdir=runs/a " + COMPANY.get(name, "")
    assert parsed(f"{line} --config.{name}=" + value.strip('"')).workdir == Path("runs/a")


def test_every_mode_is_named_and_is_one():
    assert {"train", *re.findall(r"--mode=([a-z]+)", MODES)} == set(get_args(Mode))


def test_the_lightning_table_names_every_setting_of_its_guide():
    table = MIGRATION.split("| there | here |")[1].split("## ")[0]
    there = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    for name in (
        *("encoder_checkpoint_path", "data_dir", "batch_size", "learning_rate", "num_workers"),
        *("image_size", "precision", "accumulate_grad_batches", "devices", "num_nodes", "fsdp"),
        *('ckpt_path="last"', "ckpt_path=PATH", "use_hf_dataset=false", "ema_decay", "max_steps"),
        *("Dinov2withNorm", "SigLIPwithNorm", "MAEwithNorm", "warmup_steps", "max_epochs"),
        *("cfg_scale", "class_list", "labels", "num_samples", "num_steps", "output_dir"),
    ):
        assert any(name in cell for cell in there), name


def test_there_are_commands():
    assert len(COMMANDS) >= 4


def test_the_error_shown_is_the_error_printed(parsed):
    command, printed = re.search(
        r"\$ python -m rae_dit\.main (.+)\nrae_dit: (.+)\n", TRAINING
    ).groups()
    with pytest.raises(ConfigError) as error:
        parsed(command)
    assert str(error.value) == printed


def test_every_file_it_names_exists():
    names = re.findall(r"\b(?:configs|launch|docs|rae_dit)/[\w/]+\.\w+", README + MODES)
    missing = [name for name in set(names) if not (ROOT / name).exists()]
    assert len(names) > 5
    assert missing == []


def test_every_file_it_names_in_short_exists():
    """Such as `training/step.py`; sweep.md is one that a run leaves."""
    names = set(re.findall(r"`([\w/]+\.(?:py|sh|md))`", LAYOUT + MODES)) - {"sweep.md"}
    folders = (ROOT, ROOT / "rae_dit", ROOT / "configs")
    assert {"diffusion/flow.py", "models/ddt.py", "training/step.py"} <= names
    assert [name for name in names if not any((f / name).exists() for f in folders)] == []


def test_every_python_file_and_folder_of_the_tree_exists():
    tree = LAYOUT.split("## Layout")[1].split("```")[1]
    names = set(re.findall(r"^  (\S+)", tree, re.MULTILINE) + re.findall(r"\w+\.py", tree))
    assert len(names) > 8
    for name in names:
        assert (ROOT / "rae_dit" / name).exists(), name
    assert {f"{path.parent.name}/" for path in (ROOT / "rae_dit").glob("*/__init__.py")} <= names
    assert {path.name for path in (ROOT / "rae_dit").glob("[a-z]*.py")} <= names


def test_the_python_code_runs_on_small_weights(monkeypatch, tmp_path):
    """Its three files are replaced by golden ones, and by a DiT^DH that fits their latents."""
    write_official_ddt(tmp_path / "stage2_model.pt")
    code = RELEASED.split("```python\n")[1].split("```")[0]
    replacements = {
        r'"facebook/[^"]+"': f'"{GOLDEN / "rae_dinov2_encoder"}"',
        r'"[^"]+/model\.pt"': f'"{GOLDEN / "rae_dinov2_decoder" / "model.pt"}"',
        r'"[^"]+/stat\.pt"': f'"{GOLDEN / "rae_dinov2_stat.pt"}"',
        r'"[^"]+/stage2_model\.pt"': f'"{tmp_path / "stage2_model.pt"}"',
        r"encoder_input_size=224": "encoder_input_size=56",
    }
    for pattern, value in replacements.items():
        code, count = re.subn(pattern, value, code)
        assert count == 1, pattern
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert names["images"].shape == (4, 64, 64, 3)
    assert (tmp_path / "grid.png").stat().st_size > 1000
