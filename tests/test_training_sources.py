"""From every source, the steps after a restore are those of the uninterrupted run, bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from support.image_files import encoded
from support.parquet_files import table, write_shard
from support.small_run import assert_trees_equal, small_config
from support.tar_files import record, write_tar
from support.tfds_files import write_tfds

from rae_dit.checkpoint.manager import Checkpoints
from rae_dit.config import Config
from rae_dit.data import pipeline
from rae_dit.data import position as data_position
from rae_dit.setup import data
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.program import Program
from rae_dit.training.run import Run, in_saved_order, position
from rae_dit.training.sharding import make_mesh, shard_batch
from rae_dit.training.state import TrainState

COUNT, SAVED, LAST = 20, 3, 5  # images; steps. Batches of 8: the resumed part begins in an epoch


def write_folder(folder: Path) -> str:
    for number in range(COUNT):
        path = folder / f"{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(number, "JPEG"))
    return str(folder)


def write_shards(suffix: str) -> Callable[[Path], str]:
    def write_two(folder: Path) -> str:
        write_shard(folder / f"train-0.{suffix}", table(range(COUNT // 2)))
        write_shard(folder / f"train-1.{suffix}", table(range(COUNT // 2, COUNT)))
        return str(folder)

    return write_two


def write_tars(folder: Path) -> str:
    for shard in (0, 1):
        numbers = range(shard * COUNT // 2, (shard + 1) * COUNT // 2)
        members = [member for n in numbers for member in record(n, f"{n}")]
        write_tar(folder / f"train-{shard}.tar", members)
    return str(folder)


SOURCES: dict[str, tuple[str, Callable[[Path], str]]] = {
    "digits": ("digits", lambda folder: ""),
    "synthetic": ("synthetic", lambda folder: ""),
    "folder": ("folder", write_folder),
    "parquet": ("huggingface", write_shards("parquet")),
    "arrow": ("huggingface", write_shards("arrow")),
    "tfds": ("tfds", lambda folder: str(write_tfds(folder, {"train": range(COUNT)}))),
    "tar": ("tar", write_tars),
}


@pytest.fixture(scope="module")
def program() -> Program:
    """One program for all sources: they give images of one size."""
    return make_program(config_of("synthetic", ""), make_mesh(1, jax.devices()[:1]))


def config_of(source: str, path: str) -> Config:
    return small_config(
        **{
            "data.source": source,
            "data.path": path,
            "data.num_classes": 10,
            "data.crop": "random" if path else "adm_center",
            "encoder.depth": 1,
            "ddt.depth": (1, 1),
        }
    )


def take_steps(
    config: Config, program: Program, state: TrainState, workers: int
) -> dict[int, TrainState]:
    """Goes on from wherever the state stands, as the loop does; returns the state at each step."""
    mesh, source = make_mesh(1, jax.devices()[:1]), data.open_source(config, "train")
    frozen = make_task(config).load_frozen(mesh)
    stream = pipeline.train_batches(
        source,
        batch_size=config.data.batch_size,
        seed=config.seed,
        start_step=int(state.step),
        num_workers=workers,
        flip=config.data.flip,
        shuffle=config.data.shuffle,
    )
    states = {}
    with stream:
        while int(state.step) < LAST:
            state, _ = program.step(state, frozen, shard_batch(next(stream), mesh))
            states[int(state.step)] = jax.tree.map(jnp.copy, state)  # the step donates it
    return states


QUICK = ("digits", "folder")  # the others read files by the same code, in minutes more


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SOURCES],
)
def test_a_restore_changes_nothing(tmp_path: Path, program: Program, name: str) -> None:
    (tmp_path / "data").mkdir()
    source, write_files = SOURCES[name]
    config = config_of(source, write_files(tmp_path / "data"))
    straight = take_steps(config, program, program.create(), workers=0)

    def saved_position() -> dict[str, int | str]:
        return data_position.position(
            data.open_source(config, "train"),
            step=SAVED,
            seed=config.seed,
            batch_size=config.data.batch_size,
            shuffle=config.data.shuffle,
        )

    numbers = {"save_every": 1, "keep_last": 1, "keep_every": None}
    with Checkpoints(tmp_path / "checkpoints", **numbers) as checkpoints:
        checkpoints.save(SAVED, straight[SAVED], saved_position())
    with Checkpoints(tmp_path / "checkpoints", **numbers) as checkpoints:
        restored, saved = checkpoints.restore(program.abstract) or pytest.fail("nothing restored")
    data_position.check_position(saved, saved_position())
    resumed = take_steps(config, program, restored, workers=2)
    assert resumed.keys() == set(range(SAVED + 1, LAST + 1))
    for step, state in resumed.items():
        assert_trees_equal(state, straight[step])


@pytest.mark.parametrize("begun", ["records", "groups"])
@pytest.mark.parametrize("asked", ["records", "groups"])
def test_a_run_keeps_the_order_in_which_it_began(tmp_path: Path, begun: str, asked: str) -> None:
    write_shard(tmp_path / "data.parquet", table(range(COUNT)))
    config = small_config(
        **{"data.source": "huggingface", "data.path": str(tmp_path), "data.shuffle": asked}
    )
    unused: Any = None
    run = Run(config, unused, unused, unused, data.open_source(config, "train"), None, {})
    old = run._replace(config=small_config(**{"data.shuffle": begun}))
    saved = json.loads(json.dumps(position(old, SAVED)))
    assert ("shuffle" in saved) == (begun == "groups")  # a checkpoint of before has no such field
    kept = in_saved_order(run, saved)
    assert kept.config.data.shuffle == begun
    data_position.check_position(saved, position(kept, SAVED))
