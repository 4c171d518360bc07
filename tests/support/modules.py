"""Modules of rae_dit as text: their names, rooms and imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2] / "rae_dit"
MODULES = sorted(path for path in ROOT.rglob("*.py") if len(ast.parse(path.read_text()).body) > 1)


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
