r"""Rounding error of gradients that are summed over devices in bfloat16, as XLA does in bf16.

    bash launch/quickstart.sh runs/quickstart
    python launch/benchmarks/sum_in_bfloat16.py runs/quickstart

Takes the trained DiT^DH of a quickstart and the gradients of 256 parts of four images each, rounded
to bfloat16 as the products give them. They are added one after another in bfloat16, which is the
worst order (a ring), and exactly. One line for each number of parts, with lengths of vectors over
all parameters: the error against the gradient, and against the spread that a gradient of so many
images has in any case.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from configs import dit_digits
from rae_dit.config import Config, from_config_dict
from rae_dit.data.transforms import to_float
from rae_dit.setup import data, weights
from rae_dit.setup.objectives import make_task
from rae_dit.training.sharding import make_mesh

PARTS, IMAGES = 256, 4


def main() -> None:
    """Prints the lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path, help="what launch/quickstart.sh left")
    work = parser.parse_args().work
    parts = gradients(make_config(work), work / "dit")
    for count in (2, 8, 64, 256):
        some = parts[:count]
        exact = some.sum(axis=0, dtype=np.float64)
        total = jnp.asarray(some[0], jnp.bfloat16)
        for part in some[1:]:
            total += jnp.asarray(part, jnp.bfloat16)
        error = np.linalg.norm(np.asarray(total, np.float64) - exact)
        spread = np.linalg.norm(some.std(axis=0) * count**0.5)
        print(
            f"{count:4d} parts: error {error / np.linalg.norm(exact):.2%} of the gradient, "
            f"{error / spread:.2%} of its spread"
        )


def make_config(work: Path) -> Config:
    """Makes the config of a quickstart's stage 2, in bfloat16."""
    values = dit_digits.get_config()
    values.precision = "bf16"
    values.encoder.checkpoint = str(work / "encoder")
    values.encoder.statistics = str(work / "rae" / "statistics.npz")
    values.decoder.checkpoint = str(work / "rae")
    return from_config_dict(values)


def gradients(config: Config, run: Path) -> np.ndarray:
    """Returns the gradient of every part, bfloat16 numbers as f32 [PARTS, parameters]."""
    mesh = make_mesh(1, jax.devices()[:1])
    frozen = make_task(config).load_frozen(mesh)
    params = weights.place_ddt(config, run, mesh).parameters
    objective = make_task(config).objective
    source = data.open_source(config, "train")
    chosen = np.random.default_rng(0).integers(0, len(source), PARTS * IMAGES)
    found = [source[int(number)] for number in chosen]
    batch = {
        "image": np.stack([to_float(record["image"]) for record in found]),
        "label": np.array([record["label"] for record in found], np.int32),
    }
    example = objective.sample_inputs(frozen, batch, jax.random.key(0))
    parts = jax.tree.map(lambda x: x.reshape(PARTS, IMAGES, *x.shape[1:]), example)

    def loss(params: dict, part: dict) -> jax.Array:
        return jnp.mean(objective.loss(params, frozen, part)[0])

    def gradient(part: dict) -> dict:
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16), jax.grad(loss)(params, part))

    leaves = jax.tree.leaves(jax.lax.map(gradient, parts))
    return np.concatenate([np.asarray(leaf, np.float32).reshape(PARTS, -1) for leaf in leaves], 1)


if __name__ == "__main__":
    main()
