"""Config files of this project, found from any directory and in an installed package.

In a clone they are in configs/ beside `rae_dit`; the wheel holds them as `rae_dit/configs`.
"""

import contextlib
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path


def config_directory() -> Path:
    """Returns the directory of this project's config files."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def find_config_file(text: str) -> str:
    """Finds the file that --config names.

    Args:
        text: a path; where no such file exists, `configs/NAME.py` and `NAME.py` mean this
            project's.

    Returns:
        Path of the file; the given path if there is none.
    """
    path = Path(text)
    ours = config_directory() / path.name
    short = path.name and path.parts in ((path.name,), ("configs", path.name))
    return str(ours) if short and not os.path.exists(text) and os.path.isfile(ours) else text


@contextlib.contextmanager
def importable_configs(files: list[Path]) -> Iterator[None]:
    """Lets config files say `from configs import default`, wherever they are and are run from.

    Inside the block, `configs` is the directory of each file that has this name, then this
    project's; whatever else is on the path under that name is as before afterwards.

    Args:
        files: config files that are about to be run.
    """
    package = types.ModuleType("configs")
    own = [str(file.resolve().parent) for file in files if file.resolve().parent.name == "configs"]
    package.__path__ = [*own, str(config_directory())]
    before = {name: sys.modules.pop(name) for name in loaded_configs()}
    sys.modules["configs"] = package
    try:
        yield
    finally:
        for name in loaded_configs():
            del sys.modules[name]
        sys.modules.update(before)


def loaded_configs() -> list[str]:
    """Returns the names of the modules of `configs` that are loaded."""
    return [name for name in sys.modules if name.split(".")[0] == "configs"]
