"""Counted arithmetic: product by product against the traced program, and against XLA's count."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr
from support.small_run import small_config

from configs import default, dit2_dinov3, dit_dino, dit_dino_512, dit_mae, dit_siglip2, rae_digits
from rae_dit import flops
from rae_dit.config import from_config_dict
from rae_dit.models import mlp
from rae_dit.planning.compiled import abstract_step
from rae_dit.setup import models
from rae_dit.setup.objectives import make_task
from rae_dit.training.sharding import make_mesh

BATCH = 2


def dot_flops(jaxpr: Jaxpr) -> int:
    """2 m n k of every product in a traced program; a loop's body as often as it runs."""
    count = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval, equation.outvars[0].aval
            count += 2 * out.size * math.prod(left.shape[axis] for axis in contracted)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            if isinstance(value, ClosedJaxpr | Jaxpr):
                count += times * dot_flops(getattr(value, "jaxpr", value))
    return count


def abstract_inputs(config):
    """A module's arguments: image as the encoder sees it, latent, time, label, tokens."""
    grid, channels, side = (
        models.latent_grid(config),
        config.encoder.hidden_size,
        config.encoder.input_size,
    )
    shape = jax.ShapeDtypeStruct
    return {
        "encoder": [shape((BATCH, side, side, 3), jnp.float32)],
        "decoder": [shape((BATCH, grid**2, channels), jnp.float32)],
        "ddt": [
            shape((BATCH, grid, grid, channels), jnp.float32),
            shape((BATCH,), jnp.float32),
            shape((BATCH,), jnp.int32),
        ],
    }


MAKERS = {"encoder": models.make_encoder, "decoder": models.make_decoder, "ddt": models.make_ddt}


def forward(config, network):
    """The forward pass as a function of parameters and inputs, and shapes of both."""
    graph, state = nnx.split(models.abstract(MAKERS[network], config))

    def apply(state, *inputs):
        return nnx.merge(graph, state)(*inputs)

    return apply, (state, *abstract_inputs(config)[network])


def traced_forward(config, network) -> float:
    apply, arguments = forward(config, network)
    return dot_flops(jax.make_jaxpr(apply)(*arguments).jaxpr) / BATCH


@pytest.mark.parametrize("config", [dit_dino, dit_dino_512, dit_siglip2, dit_mae, rae_digits])
def test_every_product_of_every_network_at_true_size(config, monkeypatch):
    monkeypatch.setattr(mlp, "ALIGNMENT", 1)  # zeros that a product is padded with do not count
    config = from_config_dict(config.get_config())
    config = dataclasses.replace(
        config, compute=dataclasses.replace(config.compute, scan_layers=True)
    )
    count = flops.model_flops(config)
    found = {network: traced_forward(config, network) for network in MAKERS}
    # The product that interpolates a table of positions is part of no image.
    if config.encoder.position_grid != models.latent_grid(config):
        found["encoder"] = pytest.approx(found["encoder"], rel=2e-3)
    assert {network: getattr(count, network) for network in MAKERS} == found


@pytest.mark.parametrize(
    "changes",
    [
        {"ddt.use_swiglu": False},
        {"ddt.patch_size": 2},
        {"ddt.hidden_size": (16, 16), "ddt.depth": (3, 2)},
        {"ddt.num_heads": (4, 8), "ddt.mlp_ratio": 3.0},
        {"encoder.family": "siglip", "encoder.num_registers": 0},
        {"encoder.family": "mae", "encoder.num_registers": 0, "encoder.mlp_ratio": 3.0},
        {"encoder.num_registers": 3},
        {"encoder.depth": 4, "encoder.layers": (0, 2)},
        {"ddt.conditioning": "tokens", "ddt.base_depth": 1, "ddt.depth": (3, 1)},
    ],
    ids=str,
)
def test_every_product_of_other_shapes(changes):
    config = small_config(**changes)
    count = flops.model_flops(config)
    assert count.ddt == traced_forward(config, "ddt")
    assert count.encoder == traced_forward(config, "encoder")


@pytest.mark.parametrize("objective", ["flow_matching", "reconstruction", "classification"])
def test_a_step_of_every_objective(objective):
    """As traced; but nobody asks for the gradient of an image or a latent, 1 of 3 products."""
    config = dataclasses.replace(
        small_config(
            **{
                "ddt.depth": (6, 2),
                "decoder.depth": 6,
                "encoder.depth": 6,
                "compute.scan_layers": True,
            }
        ),
        objective=objective,
    )
    mesh = make_mesh(1, jax.devices()[:1])
    step = abstract_step(config, mesh)
    traced = jax.make_jaxpr(step.function)(step.state, step.frozen, step.batch).jaxpr
    found = dot_flops(traced) / config.data.batch_size
    count = flops.train_flops(make_task(config).work)
    assert 0.95 * count < found < count


def test_xla_counts_a_little_more():
    """Its count has norms and activations too; unrolled, since it counts a loop's body once."""
    config = small_config(
        **{
            "compute.scan_layers": False,
            "encoder.hidden_size": 192,
            "ddt.hidden_size": (256, 384),
            "ddt.depth": (3, 2),
        }
    )
    apply, arguments = forward(config, "ddt")
    found = jax.jit(apply).lower(*arguments).cost_analysis()["flops"] / BATCH
    assert found / 1.03 < flops.model_flops(config).ddt < found


def test_the_reference_step_is_one_teraflop():
    count = flops.train_flops(make_task(from_config_dict(dit_dino.get_config())).work)
    assert count == pytest.approx(1.014e12, rel=5e-3)  # as issue 7 has it


def test_raev2_at_its_published_size():
    """Counts of the specification: RAEV2.md 0 and 5, there of the reference's own modules."""
    task = make_task(from_config_dict(dit2_dinov3.get_config()))
    assert flops.total(task.work.trained) == pytest.approx(2 * 237.5e9, rel=1e-3)
    assert flops.total(list(task.work.optimizer)) == pytest.approx(2 * 17.2e12, rel=3e-3)
    assert not make_task(from_config_dict(dit_dino.get_config())).work.optimizer


def test_every_objective_trains_its_own_network():
    config = small_config()
    count = flops.model_flops(config)

    def train_step(objective):
        return flops.train_flops(make_task(dataclasses.replace(config, objective=objective)).work)

    head = 2 * config.encoder.hidden_size * config.data.num_classes
    assert train_step("flow_matching") == count.encoder + 3 * count.ddt
    assert train_step("reconstruction") == count.encoder + 3 * count.decoder
    assert train_step("classification") == 3 * (count.encoder + head)
    probing = dataclasses.replace(
        config,
        objective="classification",
        probe=dataclasses.replace(config.probe, freeze_encoder=True),
    )
    assert flops.train_flops(make_task(probing).work) == count.encoder + 3 * head
    assert flops.train_flops(make_task(from_config_dict(default.get_config())).work) > 1e12


@pytest.mark.parametrize(
    ("kind", "precision", "tera"),
    [
        ("NVIDIA H200", "bf16", 989.4),
        ("NVIDIA H100 80GB HBM3", "tf32", 494.7),
        ("NVIDIA H100 80GB HBM3", "fp32", 66.9),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("TPU v4", "bf16", 275),
        ("TPU v5 lite", "bf16", 197),
        ("TPU v5", "bf16", 459),
        ("TPU v6 lite", "tf32", 306),
        ("TPU v6 lite", "fp32", 153),
    ],
)
def test_peaks(kind, precision, tera):
    assert flops.peak_flops(kind, precision) == pytest.approx(tera * 1e12)


def test_an_unknown_device_has_no_peak():
    assert flops.peak_flops("cpu", "bf16") is None
