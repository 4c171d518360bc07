"""The graph of rooms, computed from the imports: no loops, no forbidden arrows.

python tests/test_rooms.py      prints the rooms by layer
"""

import ast

import pytest
from support.modules import MODULES, ROOT, imports, module_name, room_of

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


def rooms() -> dict[str, set[str]]:
    """Room -> the rooms it imports."""
    known = {room_of(module_name(path)) for path in ROOT.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        here = room_of(module_name(path))
        ours = (name for name in imports(path.read_text()) if name.startswith("rae_dit."))
        named = {room_of(name.removeprefix("rae_dit.")) for name in ours}
        found = named & known | ({"__init__"} if named - known else set())
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


def test_a_package_s_command_line_is_run_and_not_imported():
    """That is why it may stand above rooms that import its package."""
    graph = rooms()
    assert {"demo.__main__", "weights.__main__"} <= set(graph)
    assert not [name for found in graph.values() for name in found if name.endswith("__main__")]


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


def picture(graph: dict[str, set[str]]) -> str:
    """One line per layer, lowest first."""
    return "\n".join(f"{level}  {', '.join(names)}" for level, names in enumerate(layers(graph)))


def test_contributing_shows_the_layers():
    """If this fails, paste the output of `python tests/test_rooms.py` into CONTRIBUTING.md."""
    assert f"```\n{picture(rooms())}\n```" in (ROOT.parent / "CONTRIBUTING.md").read_text()


if __name__ == "__main__":
    assert not loops(rooms()), loops(rooms())
    print(picture(rooms()))
