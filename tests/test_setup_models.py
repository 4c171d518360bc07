"""Every config at its true size, in shapes alone: no memory, no compile, no files."""

import dataclasses
import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from support.golden_files import GOLDEN
from support.small_run import small_config

from rae_dit.checkpoint.integrity import named_leaves
from rae_dit.config import Config, from_config_dict
from rae_dit.models.ddt import DDT
from rae_dit.models.layers import RMSNorm
from rae_dit.models.mlp import SwiGLU
from rae_dit.setup import models
from rae_dit.setup.compute import compute
from rae_dit.setup.objectives import make_task
from rae_dit.setup.optim import make_optimizer

FOLDER = pathlib.Path(__file__).parent.parent / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def config_of(name: str) -> Config:
    return from_config_dict(importlib.import_module(f"configs.{name}").get_config())


def parameters(module: nnx.Module) -> dict:
    return nnx.to_pure_dict(nnx.state(module))


@pytest.mark.parametrize("name", NAMES)
def test_the_objective_traces_at_true_size(name: str) -> None:
    config = config_of(name)
    params = parameters(make_task(config).module)
    frozen = {}
    if config.objective != "classification" or config.probe.freeze_encoder:

        def make_rae(config: Config, rngs: nnx.Rngs) -> nnx.Module:
            statistics = bool(config.encoder.statistics)
            return models.make_rae(config, rngs, decoder=False, statistics=statistics)

        frozen = parameters(models.abstract(make_rae, config))
    if config.objective == "reconstruction":
        frozen = {"rae": frozen, "lpips": parameters(models.abstract(models.make_lpips, config))}
    if config.objective in ("trajectory", "mean_flow"):
        sizes = dataclasses.replace(models.ddt_architecture(config), interval_embedding=False)
        teacher = nnx.eval_shape(lambda: DDT(sizes, compute(config), rngs=nnx.Rngs(0)))
        frozen = {"rae": frozen, "teacher": parameters(teacher)}
    size, side = config.few_step.interval_every, config.data.image_size
    batch = {
        "image": jax.ShapeDtypeStruct((size, side, side, 3), jnp.float32),
        "label": jax.ShapeDtypeStruct((size,), jnp.int32),
        "step": jax.ShapeDtypeStruct((), jnp.int32),  # asked for by objectives of few steps
    }
    objective = make_task(config).objective
    key = jax.eval_shape(lambda: jax.random.key(0))
    example = jax.eval_shape(objective.sample_inputs, frozen, batch, key)
    loss, metrics = jax.eval_shape(objective.loss, params, frozen, example)
    # Of a batch, trajectories of a teacher take the labels alone, as many as make pairs of states.
    rows = size if config.objective != "trajectory" else example["label"].shape[0]
    assert (loss.shape, loss.dtype) == ((rows,), jnp.float32)
    assert all(metric.shape == (rows,) for metric in metrics.values())
    if config.objective == "flow_matching":
        grid = models.latent_grid(config)
        assert example["latent"].shape == (size, grid, grid, config.encoder.hidden_size)


@pytest.mark.parametrize(
    ("name", "size"),
    [("dit_dino_s", "S"), ("dit_dino_b", "B"), ("dit_dino_l", "L"), ("dit_dino", "XL")],
)
def test_sizes_have_the_released_number_of_parameters(name: str, size: str) -> None:
    released = json.loads((GOLDEN / "manifests.json").read_text())[f"ddt_{size}_params"]
    leaves = jax.tree.leaves(parameters(models.abstract(models.make_ddt, config_of(name))))
    assert sum(leaf.size for leaf in leaves) == released


@pytest.mark.parametrize("wanted", [False, True])
def test_every_switch_of_the_ddt_reaches_it(wanted: bool) -> None:
    switches = ("use_rope", "use_pos_embed", "use_qknorm", "use_rmsnorm", "use_swiglu")
    config = config_of("dit_dummy")
    changed = dataclasses.replace(config.ddt, **dict.fromkeys(switches, wanted))
    ddt = models.abstract(models.make_ddt, dataclasses.replace(config, ddt=changed))
    block = ddt.backbone.blocks
    assert ddt.architecture.use_rope == wanted
    assert (ddt.position is not None) == wanted
    assert (block.attention.q_norm is not None) == wanted
    assert isinstance(block.norm1, RMSNorm) == wanted
    assert isinstance(block.mlp, SwiGLU) == wanted


@pytest.mark.parametrize(
    ("name", "shift", "grid"),
    [("dit_dino", 6.9282, 16), ("dit_dino_512", 13.8564, 32), ("dit_mae", 6.9282, 16)],
)
def test_the_shift_follows_from_the_latent_s_size(name: str, shift: float, grid: int) -> None:
    config = config_of(name)
    assert config.flow.shift is None
    assert models.latent_grid(config) == grid
    assert models.latent_shift(config) == pytest.approx(shift, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "shift"), [({"shift": 2.5}, 2.5), ({"shift_base": 256}, 27.7128)]
)
def test_what_is_said_of_the_shift_goes_first(changes: dict[str, float], shift: float) -> None:
    config = config_of("dit_dino")
    config = dataclasses.replace(config, flow=dataclasses.replace(config.flow, **changes))
    assert models.latent_shift(config) == pytest.approx(shift, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "position_grid", "mean", "std"),
    [
        ("dit_dino", 37, 0.485, 0.229),
        ("dit_dino_512", 37, 0.485, 0.229),
        ("dit_siglip2", 16, 0.5, 0.5),
    ],
)
def test_the_encoder_has_its_own_positions_and_image_constants(
    name: str, position_grid: int, mean: float, std: float
) -> None:
    def make(config: Config, rngs: nnx.Rngs) -> nnx.Module:
        return models.make_rae(config, rngs, decoder=True, statistics=False)

    rae = models.abstract(make, config_of(name))
    assert rae.encoder.architecture.position_grid == position_grid
    assert (rae.image_mean[0], rae.image_std[0]) == (mean, std)
    assert rae.decoder.grid * rae.decoder.patch_size == config_of(name).data.image_size


def test_a_network_is_traced_once_and_its_callers_share_no_module() -> None:
    made = []

    def make(config: Config, rngs: nnx.Rngs) -> nnx.Module:
        made.append(config)
        return models.make_ddt(config, rngs)

    config = config_of("dit_dummy")
    first, second = models.abstract(make, config), models.abstract(make, config_of("dit_dummy"))
    assert len(made) == 1
    first.backbone.blocks, first.grid = None, 0
    first.label_table.set_value(jnp.zeros(1))
    for module in (second, models.abstract(make, config)):
        assert isinstance(module.label_table.get_value(), jax.ShapeDtypeStruct)
    assert nnx.graphdef(second) == nnx.graphdef(models.abstract(models.make_ddt, config))
    wider = dataclasses.replace(config, ddt=dataclasses.replace(config.ddt, depth=(3, 1)))
    assert models.abstract(make, wider).backbone.depth == 3
    half = models.abstract(make, dataclasses.replace(config, precision="bf16"))
    assert (second.dtype, half.dtype) == (jnp.float32, jnp.bfloat16)
    assert len(made) == 3


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(
    ("section", "make", "constants"),
    [
        ("ddt", models.make_ddt, {"position", "time_embedding.frequency"}),
        ("decoder", models.make_decoder, {"position"}),
    ],
)
def test_constants_decay_only_if_they_are_trained(section, make, constants, trained) -> None:
    changes = {f"{section}.train_constants": trained, "optim.weight_decay": 0.5}
    config = small_config(**changes)
    module = models.abstract(make, config)
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), parameters(module))
    optimizer = make_optimizer(config, module)
    zeros = jax.tree.map(jnp.zeros_like, ones)
    updates, _ = optimizer.update(zeros, optimizer.init(ones), ones)
    still = {name for name, update in flatten_dict(updates, sep=".").items() if not update.any()}
    assert still == (set() if trained else constants)


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize("section", ["ddt", "decoder"])
def test_a_checkpoint_of_one_setting_can_be_continued_under_the_other(section, name) -> None:
    make = {"ddt": models.make_ddt, "decoder": models.make_decoder}[section]
    stored = []
    for trained in (False, True):
        changes = {f"{section}.train_constants": trained, "optim.name": name}
        config = small_config(**changes)
        module = models.abstract(make, config)
        params = parameters(module)
        moments = jax.eval_shape(make_optimizer(config, module).init, params)
        leaves = named_leaves({"params": params, "opt_state": moments})
        stored.append({path: (leaf.shape, leaf.dtype) for path, leaf in leaves.items()})
    assert stored[0] == stored[1]
    assert sum(path.endswith("/position") for path in stored[0]) == (2 if name == "sgd" else 3)


def test_the_reference_s_recipes_train_the_constants() -> None:
    trained = {
        name
        for name in NAMES
        for config in [config_of(name)]
        if (config.ddt if config.objective == "flow_matching" else config.decoder).train_constants
    }
    assert trained == {name for name in NAMES if name.startswith(("dit_dino", "rae_dino"))} | {
        *("dit_mae", "dit_siglip2", "rae_mae", "rae_siglip2"),
        *("dit2_dinov3", "rae2_dinov3", "dit2_digits"),
    }
