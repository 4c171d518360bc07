"""The wheel: its files, its extras, and that it finds its configs where there is no clone."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = set(PROJECT["tool"]["setuptools"]["dynamic"]["optional-dependencies"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, because building leaves files in the tree."""
    source = tmp_path_factory.mktemp("source with a space")
    for folder in ("rae_dit", "configs"):
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for path in (ROOT / "pyproject.toml", ROOT / "setup.py", *ROOT.glob("requirements*.txt")):
        shutil.copy(path, source)
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, timeout=120
    )
    assert made.returncode == 0, made.stderr
    (path,) = (source / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_module_and_config_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "rae_dit").rglob("*.py")}
    configs = {f"rae_dit/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert files == modules | configs


def test_the_wheel_has_the_extras(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_string(wheel.read(name).decode())
    assert set(metadata.get_all("Provides-Extra", [])) == EXTRAS
    assert {"cuda12", "cuda13", "tpu", "gcs", "s3", "demo", "docs", "test"} <= EXTRAS
    needed = metadata.get_all("Requires-Dist", [])
    for extra, package in (("cuda12", "jax[cuda12]"), ("cuda13", "jax[cuda13]"), ("tpu", "jax[")):
        assert any(package in line and f'extra == "{extra}"' in line for line in needed)


@pytest.mark.parametrize("config", ["configs/dit_digits.py", "dit_digits.py", "mine.py"])
def test_the_wheel_finds_its_configs_anywhere(
    wheel: zipfile.ZipFile, tmp_path: Path, config: str
) -> None:
    """Also where another project has a `configs` of its own; and a config of the user's."""
    wheel.extractall(tmp_path / "site")
    here = tmp_path / "project"
    (here / "configs").mkdir(parents=True)
    (here / "configs" / "__init__.py").write_text("")
    code = (ROOT / "docs" / "install.md").read_text().split("```python\n")[1].split("```")[0]
    (here / "mine.py").write_text(code.replace("dit_dino", "dit_digits"))
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path / "site")!r})
import rae_dit
assert rae_dit.__file__.startswith({str(tmp_path)!r})
from absl import flags
from rae_dit.request import define_flags, read_request
sys.argv = ["main", "--config={config}", "--workdir=runs/a", "--config.seed=7"]
define_flags(flags.FLAGS)
request = read_request(sys.argv)
print(request.config.seed, request.config.data.source, request.config.data.batch_size)
import configs
print(configs.__file__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    batch_size = 256 if config == "mine.py" else 64
    assert done.stdout.splitlines() == [
        f"7 digits {batch_size}",
        str(here / "configs" / "__init__.py"),
    ]


def test_every_requirements_file_is_an_extra() -> None:
    files = {path.stem.removeprefix("requirements-") for path in ROOT.glob("requirements-*.txt")}
    assert files == EXTRAS


def test_the_installation_page_names_every_extra() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    assert EXTRAS - set(re.findall(r"\.\[([a-z0-9,]+)\]", page)) == set()
