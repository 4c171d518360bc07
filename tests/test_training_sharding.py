"""Where arrays live: axis names through the rules, on eight CPU devices."""

import dataclasses
import importlib
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

import configs
from configs import dit_dino
from rae_dit.config import ConfigError, from_config_dict
from rae_dit.models.layers import Linear
from rae_dit.planning.compiled import without_files
from rae_dit.setup import models
from rae_dit.setup.objectives import make_task
from rae_dit.training.sharding import (
    batch_sharding,
    check_fsdp,
    local_rows,
    make_mesh,
    parameter_shardings,
    shard_batch,
)


def test_mesh_axes():
    assert dict(make_mesh(1).shape) == {"replica": 8, "fsdp": 1}
    assert dict(make_mesh(4).shape) == {"replica": 2, "fsdp": 4}


def test_fsdp_must_divide_the_devices():
    with pytest.raises(ConfigError, match=r"sharding.fsdp: got 3.*8 devices"):
        make_mesh(3)


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU that is not there, as far as jax lays out meshes."""

    id: int
    process_index: int
    slice_index: int
    coords: tuple[int, int, int]
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"
    core_on_chip: int = 0


def chips(slices: int) -> list[Chip]:
    """v5e-16 slices: 4 x 4 chips of four hosts; jax lists devices by process."""
    found = [
        Chip(16 * part + 4 * y + x, 4 * part + y // 2 * 2 + x // 2, part, (x, y, 0))
        for part in range(slices)
        for y in range(4)
        for x in range(4)
    ]
    return sorted(found, key=lambda chip: (chip.process_index, chip.id))


@pytest.mark.parametrize("slices", [1, 2, 4])
def test_slices_are_replicas_and_fsdp_stays_within_one(slices):
    for fsdp in (1, 2, 8, 16):
        grid = make_mesh(fsdp, chips(slices)).devices
        assert grid.shape == (16 * slices // fsdp, fsdp)
        assert sorted(chip.id for chip in grid.flat) == list(range(16 * slices))
        parts = [[chip.slice_index for chip in row] for row in grid]
        assert all(len(set(row)) == 1 for row in parts)
        assert [row[0] for row in parts] == sorted(row[0] for row in parts)


def test_fsdp_across_slices_is_refused():
    expected = r"^sharding.fsdp: got 32; expected a divisor of the 16 devices of each of 2 slices$"
    with pytest.raises(ConfigError, match=expected):
        make_mesh(32, chips(2))


def test_names_become_mesh_axes_and_biases_are_copied():
    linear = Linear(16, 24, axes=("embed", "mlp"), dtype=jnp.float32, rngs=nnx.Rngs(0))
    specs = jax.tree.map(lambda s: s.spec, parameter_shardings(linear, make_mesh(8)))
    assert specs == {"kernel": P("fsdp", None), "bias": P()}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((16, 24), ("fsdp", None)), ((12, 24), (None, "fsdp")), ((12, 20), (None, None))],
)
def test_another_axis_is_split_where_the_width_does_not_divide(sizes, expected):
    linear = Linear(*sizes, axes=("embed", "mlp"), dtype=jnp.float32, rngs=nnx.Rngs(0))
    assert parameter_shardings(linear, make_mesh(8))["kernel"].spec == P(*expected)


FSDP = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]


def bytes_of(state, shardings) -> int:
    """On one device, in the layout that jax makes of the shardings."""
    shapes = jax.tree.map(lambda leaf, s: np.prod(s.shard_shape(leaf.shape)), state, shardings)
    return 4 * int(sum(jax.tree.leaves(shapes)))


def test_every_preset_is_split_evenly_or_refused():
    """Each preset's trained network, on meshes of up to 2048 devices."""
    refused: dict[tuple[str, int], str] = {}
    first: dict[str, str] = {}  # of the presets with the same network
    for path in sorted(Path(configs.__file__).parent.glob("[a-z]*.py")):
        if path.stem == "default":
            continue
        config = from_config_dict(importlib.import_module(f"configs.{path.stem}").get_config())
        module = make_task(without_files(config)).module
        state = nnx.to_pure_dict(nnx.state(module))
        same = first.setdefault(str(state), path.stem)
        if same != path.stem:
            refused |= {(path.stem, n): line for (name, n), line in refused.items() if name == same}
            continue
        total = 4 * sum(leaf.size for leaf in jax.tree.leaves(state))
        for fsdp in FSDP:
            mesh = AbstractMesh((2, fsdp), ("replica", "fsdp"))
            local = bytes_of(state, parameter_shardings(module, mesh))
            try:
                check_fsdp(module, mesh)
            except ConfigError as error:
                assert local > 2 * total / fsdp, (path.stem, fsdp)
                refused[path.stem, fsdp] = str(error)
            else:
                assert local <= 2 * total / fsdp, (path.stem, fsdp)
    assert len({name for name, _ in refused}) > 15
    small = {(name, n) for name, n in refused if "dino" in name and n in (2, 4, 8, 16, 32, 64, 128)}
    assert small == {("dit2_dinov3", 64), ("dit2_dinov3", 128)}  # 1440 = 32 x 45
    assert refused["dit_dino", 256] == (
        "sharding.fsdp: got 256; expected 128, the largest divisor of 512 devices that works; "
        "256 divides no axis of 19% of the parameters, which every device would hold whole"
    )


def test_memory_of_256_processes_by_formula():
    """docs/many_hosts.md: 16 bytes a parameter, split over fsdp, however many replicas there are.

    What cannot be split: biases, norms, position table and frequencies of DiT^DH-XL.
    """
    ddt = models.abstract(models.make_ddt, from_config_dict(dit_dino.get_config()))
    state = nnx.to_pure_dict(nnx.state(ddt))
    whole, split = 976_084, 838_675_796 - 976_084
    for processes in (2, 4, 8, 256):  # of four devices
        for fsdp in (1, 4, 8, 128):
            if 4 * processes % fsdp == 0:
                mesh = AbstractMesh((4 * processes // fsdp, fsdp), ("replica", "fsdp"))
                found = 4 * bytes_of(state, parameter_shardings(ddt, mesh))
                assert found == 16 * (whole + split // fsdp)


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


def test_a_process_reads_the_rows_of_its_devices():
    """On a torus the devices of a host are not next to each other in the mesh."""
    processes = np.array([[0, 0, 1, 1], [1, 1, 0, 0]])
    devices = np.vectorize(lambda process: SimpleNamespace(process_index=process))(processes)
    mesh = SimpleNamespace(devices=devices)
    assert local_rows(mesh, 16, process_index=0).tolist() == [0, 1, 2, 3, 12, 13, 14, 15]
    assert local_rows(mesh, 8, process_index=1).tolist() == [2, 3, 4, 5]


def test_rows_are_those_that_the_sharding_puts_on_each_device():
    grid = np.array(jax.devices()).take([3, 0, 6, 1, 7, 5, 2, 4]).reshape(2, 4)
    mesh = Mesh(grid, ("replica", "fsdp"))
    rows = local_rows(mesh, 16)
    batch = shard_batch({"row": rows}, mesh)["row"]
    np.testing.assert_array_equal(batch, np.arange(16))
    for device, index in batch_sharding(mesh).devices_indices_map((16,)).items():
        place = list(mesh.devices.flat).index(device)
        assert list(range(16))[index[0]] == rows.reshape(8, 2)[place].tolist()


def test_batch_is_split_over_all_devices():
    mesh = make_mesh(4)
    batch = shard_batch({"image": np.arange(16.0).reshape(16, 1)}, mesh)
    assert batch["image"].sharding == batch_sharding(mesh)
    assert [shard.data.shape for shard in batch["image"].addressable_shards] == [(2, 1)] * 8
    np.testing.assert_array_equal(batch["image"][:, 0], np.arange(16.0))
