"""The documentation as a site: a strict build, from all pages, with every field in its table."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs import default

ROOT = Path(__file__).parent.parent


def in_nav() -> list[str]:
    """Pages that mkdocs.yml names, in order of their names."""
    text = re.sub(r"\n(?=\S)", "\n---\n", (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1])
    return sorted(re.findall(r"[\w/]+\.(?:md|ipynb)", text.split("\n---\n")[0]))


def test_every_page_is_in_the_navigation():
    """If this fails, add the page to `nav` in mkdocs.yml, where a reader would look for it."""
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    made = {"index.md", "contributing.md", "changelog.md"}  # by launch/site.py
    assert [page for page in in_nav() if page.endswith(".md")] == sorted(pages | made)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    made = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr
    return target


def test_the_reference_has_every_field_with_type_default_and_the_seed_s_name(site: Path):
    page = (site / "config" / "index.html").read_text()
    rows = {
        re.sub(r"<[^>]+>", "", cells[0]): [re.sub(r"<[^>]+>", "", cell) for cell in cells[1:]]
        for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
        if len(cells := re.findall(r"<td>(.*?)</td>", row, re.DOTALL)) == 5
    }
    values = default.get_config().to_dict()
    names = {
        f"{section}.{name}" if isinstance(value, dict) else section
        for section, value in values.items()
        for name in (value if isinstance(value, dict) else [""])
    }
    assert set(rows) == names
    value, allowed, meaning, seed = rows["optim.accumulate_steps"]
    assert (value, allowed) == ("1", "an int &gt;= 1")
    assert meaning.startswith("parts a batch is cut into")
    assert seed == "trainer.accumulate_grad_batches"
    assert rows["ddt.hidden_size"][0] == "'(1152,2048)'"


def test_the_first_page_is_the_readme_with_links_that_lead_to_pages(site: Path):
    page = (site / "index.html").read_text()
    assert 'href="install/"' in page
    assert 'src="images/samples.png"' in page
    assert "docs/install.md" not in page.replace(">docs/install.md<", "")


def test_every_picture_is_there(site: Path):
    found = [
        page.parent / source
        for page in site.rglob("index.html")
        for source in re.findall(r'<img[^>]+src="([^":]+)"', page.read_text())
    ]
    assert len(found) >= 5
    assert [path for path in found if not path.exists()] == []


def test_docstrings_are_rendered(site: Path):
    page = (site / "api" / "index.html").read_text()
    assert 'id="rae_dit.api.load_rae"' in page
    assert "encoder_input_size" in page


QUOTED = {  # symptom's words -> the file that says them
    "loss or gradient was not finite at every step": "training/history.py",
    "because /dev/shm has": "data/workers.py",
    "the data stream changed": "data/position.py",
    "is whole, but it is not the model of this config": "checkpoint/restore.py",
    "no usable checkpoint in": "checkpoint/manager.py",
    "a directory that no other run has locked": "workdir.py",
    "got a Git LFS pointer": "weights/errors.py",
    "is not on this disk, and the Hugging Face hub did not give it": "weights/hub.py",
    "the hub was not asked": "weights/hub.py",
    "expected a config file": "command_line.py",
    "give all hosts the same code and packages": "multihost/agreement.py",
    "decoder: random weights": "setup/weights.py",
}


@pytest.mark.parametrize("words", QUOTED)
def test_messages_that_troubleshooting_quotes_are_said(words: str):
    page = " ".join((ROOT / "docs" / "troubleshooting.md").read_text().split())
    source = (ROOT / "rae_dit" / QUOTED[words]).read_text().replace("{SHARED_MEMORY}", "/dev/shm")
    said = re.sub(r'"\s*\n\s*f?"', "", source)  # strings over several lines
    assert words in page
    assert words in said
