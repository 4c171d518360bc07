"""The graph of rooms, computed from the imports: no loops, no forbidden arrows.

python tests/test_rooms.py      prints the rooms by layer
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "rae_dit"
MODULES = sorted(path for path in ROOT.rglob("*.py") if len(ast.parse(path.read_text()).body) > 1)

# Room -> packages it may not import.
KEPT_OUT = {
    "architecture": {"jax", "flax"},
    "diffusion": {"flax"},
    "ranges": {"jax", "flax"},
    "config": {"jax", "flax"},
    "data": {"jax", "flax"},
    "models": {"optax", "orbax", "absl"},
    "objectives": {"orbax", "absl", "time", "os", "pathlib"},
    "training.step": {"absl", "time", "os", "pathlib"},
    "training.state": {"absl", "time", "os", "pathlib"},
}

# Rooms that say things by logging alone.
QUIET = ("models", "diffusion", "objectives", "training", "data", "weights")

# Room at the bottom -> all that it may import of ours.
BOTTOM: dict[str, set[str]] = {
    "ranges": set(),
    "architecture": {"ranges"},
    "config": {"ranges", "architecture"},
    "diffusion": set(),
}

# Room -> rooms it may never import, whatever else happens to be free of loops.
FORBIDDEN = {
    "models": {"config", "data", "training", "setup"},
    "objectives": {"config", "data", "training", "setup"},
    "data": {"models", "objectives", "training", "setup"},
    "checkpoint": {"objectives", "training", "setup"},
    "training": {"sampling", "evaluation", "weights", "setup", "modes"},
    "sampling": {"evaluation", "setup", "modes"},
    "evaluation": {"sampling", "setup", "modes"},
    "weights": {"training", "setup"},
    "setup": {"modes"},
}


def module_name(path: Path) -> str:
    """'training.step', or 'data' for a room's __init__."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def room_of(module: str) -> str:
    """A folder or a top-level file; a room's command line (__main__) is a room above it."""
    return module if module.endswith("__main__") else module.split(".")[0]


def imports(source: str) -> Iterator[str]:
    """Full names of everything a module imports, late imports too; not those for types alone."""
    tree = ast.parse(source)
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms() -> dict[str, set[str]]:
    """Room -> the rooms it imports."""
    known = {room_of(module_name(path)) for path in ROOT.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        here = room_of(module_name(path))
        names = (name.removeprefix("rae_dit.") for name in imports(path.read_text()))
        found = {room_of(name) for name in names} & known
        graph.setdefault(here, set()).update(found - {here})
    return graph


def loops(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of rooms that import each other, directly or through others."""

    def reach(room: str) -> set[str]:
        seen: set[str] = set()
        waiting = [room]
        while waiting:
            for other in graph.get(waiting.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return seen

    reached = {room: reach(room) for room in graph}
    found = {
        tuple(sorted({room} | {o for o in reached[room] if room in reached.get(o, ())}))
        for room in graph
        if room in reached[room]
    }
    return [list(loop) for loop in sorted(found)]


def layers(graph: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by layer, lowest first: each imports rooms of lower layers only."""
    height: dict[str, int] = {}

    def measure(room: str) -> int:
        if room not in height:
            height[room] = 1 + max((measure(o) for o in graph.get(room, ())), default=-1)
        return height[room]

    for room in graph:
        measure(room)
    top = max(height.values(), default=-1)
    return [sorted(r for r in height if height[r] == level) for level in range(top + 1)]


def test_no_two_rooms_import_each_other():
    assert loops(rooms()) == []


def test_arrows_that_are_forbidden_are_not_there():
    graph = rooms()
    wrong = {room: sorted(graph[room] & others) for room, others in FORBIDDEN.items()}
    wrong |= {room: sorted(graph[room] - allowed) for room, allowed in BOTTOM.items()}
    assert {room: found for room, found in wrong.items() if found} == {}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_rooms_keep_to_their_packages(path):
    module = module_name(path)
    packages = {name.split(".")[0] for name in imports(path.read_text())}
    for room, forbidden in KEPT_OUT.items():
        if module == room or module.startswith(room + "."):
            assert not packages & forbidden, f"{module} may not import {packages & forbidden}"


def test_only_setup_and_config_ask_for_the_objective_by_name():
    asking = [
        module_name(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare | ast.Match)
        and "config.objective" in ast.unparse(getattr(node, "left", None) or node.subject)
    ]
    assert asking == ["setup.objectives"]


def test_the_search_for_loops_finds_them():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}
    assert loops(graph) == [["a", "b", "c"]]
    assert loops({"a": {"b"}, "b": set()}) == []
    assert layers({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == [["c"], ["b"], ["a"]]
    late = "def late():\n    from rae_dit.training.loop import run_steps\n"
    assert "rae_dit.training.loop" in set(imports(late))
    typed = "if TYPE_CHECKING:\n    from rae_dit.training.loop import run_steps\n"
    assert not set(imports(typed))


def test_no_nnx_jit_and_no_print_below_the_modes():
    for path in MODULES:
        source = path.read_text()
        assert "nnx.jit" not in source, path
        if module_name(path).startswith(QUIET) and not module_name(path).endswith("__main__"):
            calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
            assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


# Only storage/ knows URLs. Elsewhere a text becomes a path by `place`, never by `Path`: that of a
# URL is a local directory called "gs:".
URL = re.compile(r"\b(?:gs|gcs|s3|hf|az)://")
PATHS = ("Path", "pathlib.Path")
LOCAL_PATHS = {  # modules -> what they make of a text: files of this program and of this machine
    "config_files": "text, __file__",
    "command_line": "file, frame.filename",
    "evaluation.image_grid": "mpl.get_data_path()",
    "demo.reconstruct_tab": "path",  # an upload
    "demo.runs": "folder",  # of os.walk
    "failures": "frame.filename, __file__, tempfile.gettempdir()",
    "planning.cross_compile": "directory",
    "planning.dry_run": "path, path.partition('{')[0]",  # no URL: said before
    "provenance": "__file__",
    "weights.hub": "owner, snapshot_download(self.repository, revision=self.revision or None, "
    "allow_patterns=patterns, local_files_only=offline)",
}


def paths_made(tree: ast.AST) -> Iterator[str]:
    """Arguments of calls of `Path`, `open` and `glob`; "Path" where a call makes paths by it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func)
            made = ast.unparse(node.args[0])
            is_local = isinstance(node.args[0], ast.Constant) or made.startswith("tempfile.")
            if name in (*PATHS, "glob.glob", "open") and not is_local:
                yield made
            given = [keyword.value for keyword in node.keywords] + node.args * (name == "map")
            if any(ast.unparse(value) in PATHS for value in given):
                yield "Path"


def words(tree: ast.AST) -> Iterator[str]:
    """Texts of a module that are no docstrings."""
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.value


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_only_storage_knows_urls(path):
    module, source = module_name(path), path.read_text()
    if room_of(module) == "storage":
        return
    tree = ast.parse(source)
    assert not [text for text in words(tree) if URL.search(text)]
    libraries = {name.split(".")[0] for name in imports(source)}
    assert not libraries & {"etils", "fsspec", "gcsfs", "s3fs"}
    assert not [made for made in paths_made(tree) if made not in LOCAL_PATHS.get(module, "")]


def test_paths_made_of_texts_are_found():
    source = "Path(a)\npathlib.Path(b.c)\nplace(d)\nPath()\n'gs://x'\ndef f():\n    'gs://y'\n"
    tree = ast.parse(source)
    assert set(paths_made(tree)) == {"a", "b.c"}
    for source in ("add('--output', type=Path)", "map(pathlib.Path, names)"):
        assert set(paths_made(ast.parse(source))) == {"Path"}
    assert list(words(ast.parse("'doc'\nx = 'gs://x'"))) == ["gs://x"]


def picture(graph: dict[str, set[str]]) -> str:
    """One line per layer, lowest first."""
    return "\n".join(f"{level}  {', '.join(names)}" for level, names in enumerate(layers(graph)))


def test_contributing_shows_the_layers():
    """If this fails, paste the output of `python tests/test_rooms.py` into CONTRIBUTING.md."""
    assert f"```\n{picture(rooms())}\n```" in (ROOT.parent / "CONTRIBUTING.md").read_text()


if __name__ == "__main__":
    assert not loops(rooms()), loops(rooms())
    print(picture(rooms()))
