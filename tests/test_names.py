"""No name is used that nothing defines.

Ruff's and mypy's own checks of that are off, because they take the shapes of jaxtyping, which are
strings, for names. Here ruff looks, and what it finds inside strings does not count.
"""

import io
import json
import subprocess
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def undefined_names(directory: Path) -> list[str]:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache"]
    command += ["--select=F821", "--output-format=json", str(directory)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    strings: dict[str, list[tuple[tuple[int, int], tuple[int, int]]]] = {}
    found = []
    for entry in json.loads(ended.stdout):
        path = entry["filename"]
        if path not in strings:
            tokens = tokenize.generate_tokens(io.StringIO(Path(path).read_text()).readline)
            strings[path] = [(t.start, t.end) for t in tokens if t.type == tokenize.STRING]
        place = entry["location"]["row"], entry["location"]["column"] - 1
        if not any(start <= place < end for start, end in strings[path]):
            found.append(f"{path}:{place[0]}: {entry['message']}")
    return found


def test_every_name_is_defined() -> None:
    for directory in ("rae_dit", "configs", "launch", "tests"):
        assert undefined_names(ROOT / directory) == []


def test_an_undefined_one_would_be_seen(tmp_path: Path) -> None:
    code = (
        'from jaxtyping import Array, Float\n\n\ndef f(x: Float[Array, " B"]):\n    return g(x)\n'
    )
    (tmp_path / "a.py").write_text(code)
    assert [line.rsplit(":", 1)[1] for line in undefined_names(tmp_path)] == [" Undefined name `g`"]
