"""Only storage/ knows URLs.

Elsewhere a text becomes a path by `place`, never by `Path`: that of a URL is a local directory
called "gs:".
"""

import ast
import re
from collections.abc import Iterator

import pytest
from support.modules import MODULES, imports, module_name, room_of

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
