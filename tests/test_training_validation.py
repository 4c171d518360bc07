"""Validation reads each image once, whatever looks at it."""

import jax
import numpy as np
import pytest

from rae_dit.data.sources import synthetic
from rae_dit.training.hooks import held_out_means
from rae_dit.training.sharding import make_mesh


class Counted:
    """A source that notes what is read."""

    fingerprint, num_classes = "counted", 4

    def __init__(self, source):
        self.source, self.read = source, []

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index, /):
        self.read.append(index)
        return self.source[index]


def validate(factor, frozen, batch, key):
    """The mean pixel times a tree's factor, and a random number that both trees must share."""
    pixels = np.asarray(batch["image"], np.float64).mean(axis=(1, 2, 3))
    weight = np.asarray(batch["weight"])
    draw = float(jax.random.uniform(key))
    return {
        "loss": float(np.sum(factor * pixels * weight)),
        "draw": draw * weight.sum(),
        "weight": weight.sum(),
    }


def test_both_trees_look_at_one_decoded_batch() -> None:
    source = Counted(synthetic(8, 4, 13, seed=0))
    means, count = held_out_means(
        validate,
        {"val": 1.0, "val_ema": 3.0},
        {},
        source,
        make_mesh(1, jax.devices()[:2]),
        batch_size=4,
        seed=0,
        limit=10,
        num_workers=0,
    )
    shape_probes, read = source.read[:-10], source.read[-10:]
    assert set(shape_probes) == {0}  # looked at for its shape
    assert sorted(read) == list(range(10))
    expected = np.mean([source.source[i]["image"].mean() for i in range(10)])
    assert count == 10
    assert means["val"]["loss"] == pytest.approx(expected)
    assert means["val_ema"]["loss"] == pytest.approx(3 * expected)
    assert means["val"]["draw"] == means["val_ema"]["draw"]
    assert means["val"].keys() == {"loss", "draw"}
