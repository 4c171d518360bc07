"""The notebooks run from top to bottom; the outputs of the first are those of a whole run."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from support.golden_files import GOLDEN
from support.small_ddt import write_official_ddt

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "docs" / "notebooks"
SHORT = [
    *("--config.optim.max_steps=2", "--config.optim.warmup_steps=1"),
    "--config.optim.decay_end_step=2",
]


def run(notebook: nbformat.NotebookNode, directory: Path, monkeypatch) -> None:
    """Runs it in a kernel of this interpreter, which finds this project's files."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": directory}}
    ).execute()


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / name, as_version=4)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_valid_small_and_has_no_error(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 500_000
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert all(output.output_type != "error" for output in outputs)
    assert "/work/" not in path.read_text()


def test_the_outputs_of_the_quickstart_are_there() -> None:
    code = [cell for cell in read("quickstart.ipynb").cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    pictures = [o for cell in code for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 5


@pytest.mark.slow
def test_the_quickstart_runs(tmp_path: Path, monkeypatch) -> None:
    """In a short form: two steps a stage. In a directory with a space, far from a clone."""
    work = tmp_path / "a directory"
    work.mkdir()
    monkeypatch.setenv("RAE_DIT_NOTEBOOK_STEPS", "2")
    notebook = read("quickstart.ipynb")
    trained = re.compile(r'"--config=configs/(?:encoder|rae|dit)_digits\.py",')
    short = ", ".join(repr(argument) for argument in SHORT) + ","
    for cell in notebook.cells:
        cell.source = trained.sub(rf"\g<0> {short}", cell.source)
    run(notebook, work, monkeypatch)
    for name in ("encoder/checkpoints/2", "rae/reconstructions.png", "dit/pictures/step_2.png"):
        assert (work / "runs" / "notebook" / name).exists()


def test_released_weights_runs_on_small_ones(tmp_path: Path, monkeypatch) -> None:
    write_official_ddt(tmp_path / "ddt.pt")
    notebook = read("released_weights.ipynb")
    names = {
        "encoder": GOLDEN / "rae_dinov2_encoder",
        "decoder": GOLDEN / "rae_dinov2_decoder" / "model.pt",
        "stats": GOLDEN / "rae_dinov2_stat.pt",
        "diffusion": tmp_path / "ddt.pt",
    }
    for name, path in names.items():
        pattern = rf'^{name} = "[^"]+"$'
        cell = next(c for c in notebook.cells if re.search(pattern, c.source, re.MULTILINE))
        cell.source = re.sub(pattern, f"{name} = {str(path)!r}", cell.source, flags=re.MULTILINE)
    notebook.cells[1].source = notebook.cells[1].source.replace("= 224", "= 56")
    run(notebook, tmp_path, monkeypatch)
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 2
