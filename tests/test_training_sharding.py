"""Where arrays live: axis names through the rules, on eight CPU devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from configs import dit_dino
from rae_dit.config import from_config_dict
from rae_dit.models.layers import Linear
from rae_dit.setup import models
from rae_dit.training.sharding import (
    batch_sharding,
    make_mesh,
    parameter_shardings,
    shard_batch,
)


def test_mesh_axes():
    assert dict(make_mesh(1).shape) == {"replica": 8, "fsdp": 1}
    assert dict(make_mesh(4).shape) == {"replica": 2, "fsdp": 4}


def test_fsdp_must_divide_the_devices():
    with pytest.raises(ValueError, match=r"sharding.fsdp: got 3.*8 devices"):
        make_mesh(3)


def test_names_become_mesh_axes_and_biases_are_copied():
    linear = Linear(16, 24, axes=("embed", "mlp"), dtype=jnp.float32, rngs=nnx.Rngs(0))
    specs = jax.tree.map(lambda s: s.spec, parameter_shardings(linear, make_mesh(8)))
    assert specs == {"kernel": P("fsdp", None), "bias": P()}


def test_a_width_that_does_not_divide_is_copied():
    linear = Linear(12, 24, axes=("embed", "mlp"), dtype=jnp.float32, rngs=nnx.Rngs(0))
    assert parameter_shardings(linear, make_mesh(8))["kernel"].spec == P(None, None)


def test_golden_shardings_of_the_full_model():
    """One line per kind of parameter of DiT^DH-XL; a change here is a decision."""
    config = from_config_dict(dit_dino.get_config())
    ddt = models.abstract(models.make_ddt, config)
    shardings = parameter_shardings(ddt, make_mesh(8))
    state = nnx.to_pure_dict(nnx.state(ddt))
    lines = []
    for (path, leaf), sharding in zip(
        jax.tree.leaves_with_path(state), jax.tree.leaves(shardings), strict=True
    ):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if "bias" not in name:
            shape = "x".join(map(str, leaf.shape))
            spec = ",".join(str(axis) for axis in sharding.spec) or "copied"
            lines.append(f"{name} {shape} {spec}")
    assert lines == GOLDEN.split("\n")[1:-1]


GOLDEN = """
backbone.blocks.attention.proj.kernel 28x1152x1152 None,None,fsdp
backbone.blocks.attention.qkv.kernel 28x1152x3456 None,fsdp,None
backbone.blocks.mlp.w12.kernel 28x1152x6144 None,fsdp,None
backbone.blocks.mlp.w3.kernel 28x3072x1152 None,None,fsdp
backbone.blocks.modulation.linear.kernel 28x1152x6912 None,fsdp,None
backbone.blocks.norm1.weight 28x1152 copied
backbone.blocks.norm2.weight 28x1152 copied
embed_s.kernel 768x1152 None,fsdp
embed_x.kernel 768x2048 None,fsdp
final_linear.kernel 2048x768 fsdp,None
final_modulation.linear.kernel 2048x4096 fsdp,None
final_norm.weight 2048 copied
head.blocks.attention.proj.kernel 2x2048x2048 None,None,fsdp
head.blocks.attention.qkv.kernel 2x2048x6144 None,fsdp,None
head.blocks.mlp.w12.kernel 2x2048x10922 None,fsdp,None
head.blocks.mlp.w3.kernel 2x5461x2048 None,None,fsdp
head.blocks.modulation.linear.kernel 2x2048x12288 None,fsdp,None
head.blocks.norm1.weight 2x2048 copied
head.blocks.norm2.weight 2x2048 copied
label_table 1001x1152 None,fsdp
position 256x1152 copied
project.kernel 1152x2048 fsdp,None
time_embedding.fc1.kernel 512x1152 None,fsdp
time_embedding.fc2.kernel 1152x1152 fsdp,None
time_embedding.frequency 256 copied
"""


def test_unsharded_bytes_of_the_full_model_are_few():
    config = from_config_dict(dit_dino.get_config())
    ddt = models.abstract(models.make_ddt, config)
    shardings = parameter_shardings(ddt, make_mesh(8))
    sizes = jax.tree.map(
        lambda leaf, sharding: np.array([np.prod(sharding.shard_shape(leaf.shape)), leaf.size]),
        nnx.to_pure_dict(nnx.state(ddt)),
        shardings,
    )
    local, whole = sum(jax.tree.leaves(sizes))
    assert local < whole / 8 * 1.02


def test_batch_is_split_over_all_devices():
    mesh = make_mesh(4)
    batch = shard_batch({"image": np.arange(16.0).reshape(16, 1)}, mesh)
    assert batch["image"].sharding == batch_sharding(mesh)
    assert [shard.data.shape for shard in batch["image"].addressable_shards] == [(2, 1)] * 8
    np.testing.assert_array_equal(batch["image"][:, 0], np.arange(16.0))
