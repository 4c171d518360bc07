"""The house rules that a machine can check: imports go down only, and rooms keep to themselves."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "rae_dit"

# First match wins. A module may import modules of its own floor or below; the same floor is allowed
# because a room's files are one room.
FLOORS = [
    ("config", 0),
    ("files", 0),
    ("command_line", 1),
    ("hardware", 0),
    ("closing", 0),
    ("models.layers", 1),
    ("models.stack", 1),
    ("models.attention", 1),
    ("kernels", 1),
    ("diffusion", 1),
    ("models", 2),
    ("sampling", 3),
    ("training.optim", 2),
    ("training.sharding", 2),
    ("training.state", 3),
    ("training.objective", 3),
    ("training.distributed", 3),
    ("training.agreement", 3),
    ("training.step", 4),
    ("training.integrity", 4),
    ("training.alone", 4),
    ("training.restore", 4),
    ("training.checkpoint", 4),
    ("training.metrics", 4),
    ("training.progress", 4),
    ("training.divergence", 4),
    ("training.history", 4),
    ("training.profile", 4),
    ("training.retention", 4),
    ("training.telemetry", 4),
    ("training.weights_and_biases", 4),
    ("training.run", 6),
    ("training.restart", 6),
    ("training.measure", 6),
    ("training.pictures", 6),
    ("compile_cache", 0),
    ("compiler", 0),
    ("training.validation", 4),
    ("training.program", 6),
    ("training.loop", 6),
    ("weights.__main__", 7),
    ("weights", 3),
    ("autoencoder", 4),
    ("data", 4),
    ("evaluation", 4),
    ("build", 5),
    ("build_stage1", 5),
    ("runs", 5),
    ("pretrained", 5),
    ("loading", 5),
    ("records", 5),
    ("api", 6),
    ("__init__", 7),
    ("flops", 5),
    ("planning", 6),
    ("plan", 7),
    ("acts", 6),
    ("main", 7),
]

# Room -> packages it may not import.
KEPT_OUT = {
    "diffusion": {"flax"},
    "config": {"jax", "flax"},
    "data": {"jax", "flax"},
    "models": {"optax", "orbax", "absl"},
    "training.step": {"absl", "time", "os", "pathlib"},
    "training.state": {"absl", "time", "os", "pathlib"},
}


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def floor_of(module: str) -> int | None:
    for prefix, floor in FLOORS:
        if module == prefix or module.startswith(prefix + "."):
            return floor
    return None


def imports(source: str) -> Iterator[str]:
    """Full names of everything a module imports, late imports too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def upward_imports(module: str, source: str) -> list[str]:
    here = floor_of(module)
    found = []
    for name in imports(source):
        if not name.startswith("rae_dit."):
            continue
        there = floor_of(name.removeprefix("rae_dit."))
        if here is not None and there is not None and there > here:
            found.append(f"{module} (floor {here}) imports {name} (floor {there})")
    return found


MODULES = sorted(path for path in ROOT.rglob("*.py") if len(ast.parse(path.read_text()).body) > 1)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down_and_rooms_keep_to_themselves(path):
    module = module_name(path)
    source = path.read_text()
    assert floor_of(module) is not None, f"give {module} a floor"
    assert upward_imports(module, source) == []
    packages = {name.split(".")[0] for name in imports(source)}
    for room, forbidden in KEPT_OUT.items():
        if module == room or module.startswith(room + "."):
            assert not packages & forbidden, f"{module} may not import {packages & forbidden}"


def test_the_floor_test_sees_an_upward_import():
    source = "def late():\n    from rae_dit.training.loop import train\n    return train\n"
    assert upward_imports("models.layers", source)
    assert upward_imports("diffusion.flow", "import rae_dit.models.ddt\n")
    assert not upward_imports("training.loop", "from rae_dit.models.ddt import DDT\n")


def test_no_nnx_jit_and_no_print_below_the_acts():
    for path in MODULES:
        source = path.read_text()
        assert "nnx.jit" not in source, path
        if module_name(path).startswith(("models", "diffusion", "training", "data")):
            calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
            assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
