"""Python code on pages of docs/ does what the page says, and their command lines are accepted.

The code of docs/extending.md, install.md and released_weights.md is executed by test_extending.py,
test_packaging.py and test_readme.py.
"""

import re
import shlex
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from flax import nnx
from PIL import Image

import rae_dit
from rae_dit import plan
from rae_dit.architecture import Compute, DDTArchitecture
from rae_dit.demo import __main__ as demo
from rae_dit.models.ddt import DDT
from rae_dit.weights import __main__ as weights

ROOT = Path(__file__).parent.parent
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PAGES["README"] = (ROOT / "README.md").read_text()
COUNT = {"data": 1, "extending": 7, "few_steps": 1, "install": 1, "released_weights": 1}
COUNT["sampling"] = 2


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)


def command_lines(module: str) -> list[str]:
    """Arguments of the `python -m module` commands of the pages, without their comments."""
    text = "\n".join(PAGES.values()).replace("\\\n", " ")
    found = re.findall(rf"^ *python -m {re.escape(module)} (.+)$", text, re.MULTILINE)
    return [line.split("  # ")[0].split("   (")[0] for line in found]


def small_ddt(seed: int, **changes) -> DDT:
    """One whose output is not zero, as that of a new one is."""
    sizes = {"hidden_size": (8, 16), "depth": (1, 1), "num_heads": (2, 2)}
    architecture = DDTArchitecture(input_size=2, in_channels=4, num_classes=10, **sizes, **changes)
    ddt = DDT(architecture, Compute(), rngs=nnx.Rngs(seed))
    random = np.random.default_rng(seed)
    parameters = jax.tree.map(
        lambda a: jnp.asarray(0.2 * random.normal(size=a.shape), a.dtype), nnx.state(ddt, nnx.Param)
    )
    nnx.update(ddt, parameters)
    return ddt


def test_code_is_on_these_pages():
    """If this fails, execute the new block in a test, and count it."""
    assert {page: len(blocks(page)) for page in PAGES if blocks(page)} == COUNT


def test_data_opens_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for label in range(1000):
        folder = tmp_path / "imagenet" / "train" / f"n{label:08}"
        folder.mkdir(parents=True)
        Image.new("RGB", (320, 300), (200, 0, 0)).save(folder / "one.jpg")
    names: dict = {}
    exec(blocks("data")[0], names)
    assert (len(names["images"]), names["label"]) == (1000, 0)
    assert (names["image"].shape, names["image"].dtype) == ((256, 256, 3), np.uint8)


@pytest.fixture
def inputs():
    """As the pages' code has them: eight latents, and labels."""
    noise = jax.random.normal(jax.random.key(0), (8, 2, 2, 4))
    return {"noise": noise, "labels": np.arange(8), "rae_dit": rae_dit}


def test_sampling_takes_a_guide_and_spreads_over_devices(inputs):
    names = {"ddt": small_ddt(0), "weaker_ddt": small_ddt(1), **inputs}
    first, second = blocks("sampling")
    exec(first, names)
    assert names["latents"].shape == (8, 2, 2, 4)
    exec(second, names)
    parameters = jax.tree.leaves(nnx.state(names["ddt"]))
    assert {len(array.sharding.device_set) for array in parameters} == {jax.device_count()}
    assert all(array.sharding.is_fully_replicated for array in parameters)
    shards = names["noise"].addressable_shards
    assert {shard.data.shape[0] for shard in shards} == {8 // jax.device_count()}


def test_one_jump_is_the_average_velocity(inputs):
    names = {"ddt": small_ddt(0, interval_embedding=True), **inputs}
    exec(blocks("few_steps")[0], names)
    assert np.abs(names["velocity"]).max() > 0.1
    np.testing.assert_allclose(
        names["latents"], names["noise"] - names["velocity"], rtol=1e-5, atol=1e-6
    )


PARSERS = {"rae_dit.demo": demo.command_line, "rae_dit.weights": weights.command_line}


@pytest.mark.parametrize("module", PARSERS)
def test_command_lines_are_accepted(module):
    lines = command_lines(module)
    assert len(lines) >= {"rae_dit.demo": 3, "rae_dit.weights": 2}[module]
    for line in lines:
        PARSERS[module]().parse_args(shlex.split(line))


def test_plans_are_accepted(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = command_lines("rae_dit.plan")
    assert len(lines) >= 2
    for line in lines:
        argv = ["rae_dit.plan", *shlex.split(line)]
        monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks for overrides
        values = flags.FlagValues()
        plan.define_flags(values)
        assert plan.parse(argv, values).topology == "v5e:16x16"
