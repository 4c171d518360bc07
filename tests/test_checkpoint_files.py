"""Every file of a checkpoint, harmed in every way: found and set aside, or without importance."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from support.training_states import DATA, assert_same, like, open_checkpoints

from rae_dit.training.state import TrainState


def tiny_state(step: int) -> TrainState:
    """A state of few leaves; the kernel is too large for Orbax to store among its checked nodes."""
    kernel = jax.random.normal(jax.random.key(step), (64, 16))
    return TrainState(
        step=jnp.int32(step),
        params={"kernel": kernel, "bias": jnp.arange(3.0)},
        ema={"kernel": 2 * kernel, "bias": jnp.arange(3.0)},
        opt_state=None,
        key=jax.random.key(7),
        bad_steps=jnp.int32(0),
        last_good_step=jnp.int32(step),
    )


def flip(path: Path, share: float) -> None:
    """Inverts the byte at a share of the file, 0 first, 1 last."""
    content = bytearray(path.read_bytes())
    content[int(share * (len(content) - 1))] ^= 0xFF
    path.write_bytes(bytes(content))


HARMS: dict[str, Callable[[Path], None]] = {
    "cut to half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "removed": Path.unlink,
    "first byte flipped": lambda path: flip(path, 0),
    "middle byte flipped": lambda path: flip(path, 0.5),
    "last byte flipped": lambda path: flip(path, 1),
}

# What these hold is read by nobody: Orbax writes times and a copy of the shardings (ours come from
# the caller), a mark that matters on storage without rename, and each process's own store, whose
# content has been merged into the one above. So harm there may go unseen, if no value changes.
UNREAD = ("_CHECKPOINT_METADATA", "commit_success.txt", "_sharding", "ocdbt.process_0")
# Of these, which describe arrays, some bytes are of no consequence; the arrays are checked anyway.
DESCRIPTIONS = ("_METADATA", "array_metadatas")


def is_found(run: Path, caplog: pytest.LogCaptureFixture) -> bool:
    """Restores; True if step 2 was called damaged, set aside, and step 1 came back instead.

    Fails if what came back is not, bit for bit, what was saved at that step.
    """
    caplog.clear()
    with (
        caplog.at_level(logging.ERROR, logger="rae_dit"),
        open_checkpoints(run) as checkpoints,
    ):
        state, data = checkpoints.restore(like(tiny_state(0))) or pytest.fail("nothing restored")
    step = int(state.step)
    assert_same(state, tiny_state(step))
    assert data == DATA | {"step": step}
    names = sorted(path.name for path in run.iterdir())
    messages = [r.getMessage() for r in caplog.records if r.name.startswith("rae_dit")]
    if step == 2:
        assert (names, messages) == (["1", "2"], [])
        return False
    assert names == ["1", "quarantined-2-0"]
    assert len(messages) == 1
    assert messages[0].startswith(f"{run / '2'} is damaged")
    return True


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Orbax's readers
def test_no_harm_to_any_file_gives_a_wrong_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    with open_checkpoints(whole) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, tiny_state(step), DATA | {"step": step})
    files = sorted(p.relative_to(whole / "2") for p in whole.glob("2/**/*") if p.is_file())
    found: dict[Path, list[str]] = {file: [] for file in files}
    for file in files:
        for name, harm in HARMS.items():
            shutil.copytree(whole, run)
            harm(run / "2" / file)
            try:
                found[file] += [name] if is_found(run, caplog) else []
            except AssertionError as error:
                raise AssertionError(f"{file}, {name}") from error
            shutil.rmtree(run)
    kinds: dict[str, int] = {"read": 0, "description": 0, "unread": 0}
    for file, names in found.items():
        if set(UNREAD) & set(file.parts):
            kinds["unread"] += 1
        elif set(DESCRIPTIONS) & set(file.parts):
            kinds["description"] += 1
            assert len(names) >= len(HARMS) - 1, (file, names)
        else:
            kinds["read"] += 1
            assert names == list(HARMS), (file, names)
    assert min(kinds.values()) >= 4, kinds
