"""The loss of both heads and its gradient against RAEv2's golden file, and training by law."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.golden_files import GOLDEN, arrays, channels_last, relative_error
from support.small_ddt import T, X, Y, awake_ddt
from support.small_run import small_config

from rae_dit.architecture import Compute
from rae_dit.models.ddt import DDT
from rae_dit.objectives.flow_matching import flow_matching
from rae_dit.setup.objectives import make_task
from rae_dit.training.sharding import make_mesh
from rae_dit.weights.architecture import ddt_architecture
from rae_dit.weights.mapping import export_tensors, parameters_of
from rae_dit.weights.official import ddt_entries, import_ddt
from rae_dit.weights.raev2 import without_training_heads
from rae_dit.weights.tensor_file import open_tensors

NAMES = ("dit_default", "dit_repa_equal")


@pytest.mark.parametrize("name", NAMES)
def test_loss_of_each_sample_and_gradient(name):
    settings = json.loads((GOLDEN / "raev2" / f"{name}.json").read_text())
    golden = arrays(f"raev2/{name}")
    tensors = without_training_heads(open_tensors(GOLDEN / "raev2" / f"{name}.pt"))
    architecture = ddt_architecture(tensors, base_depth=settings["model"]["base_model_depth"])
    abstract = nnx.eval_shape(  # the reference trains the frequencies
        lambda: DDT(architecture, Compute(), train_constants=True, rngs=nnx.Rngs(0))
    )
    graph, state = nnx.split(import_ddt(tensors, abstract))
    objective = flow_matching(
        graph,
        graph,  # of no RAE: inputs are given, nothing is encoded
        null_label=settings["model"]["num_classes"],
        time_distribution="logit_normal",
        shift=settings["time_shift"],
        class_dropout=0.1,
        prediction="x",
        base_weight=settings["base_model_coeff"],
    )
    inputs = {
        "latent": jnp.asarray(channels_last(golden["latent"])),
        "noise": jnp.asarray(channels_last(golden["noise"])),
        "t": jnp.asarray(golden["loss_t"]),
        "label": jnp.asarray(golden["loss_y"]),
    }

    def mean_loss(params):
        loss, metrics = objective.loss(params, {}, inputs)
        return jnp.mean(loss), (loss, metrics)

    grads, (loss, metrics) = jax.jit(jax.grad(mean_loss, has_aux=True))(nnx.to_pure_dict(state))
    for head in ("full", "base"):
        reference = golden[f"loss_{head}_per_sample"]
        np.testing.assert_allclose(metrics[f"loss_{head}"], reference, rtol=1e-6)
    gap = golden["loss_base_per_sample"] - golden["loss_full_per_sample"]
    np.testing.assert_allclose(metrics["loss_gap"], gap, atol=2e-6 * np.abs(loss).max())
    total = settings["loss_total"] - golden.get("loss_repa", 0.0)
    np.testing.assert_allclose(jnp.mean(loss), total, rtol=1e-6)
    if settings["repa"] is not None:
        return  # the golden gradients are those of REPA's term too
    abstract_leaves = parameters_of(abstract)
    flat = {path: leaf for path, leaf in _flat(grads).items() if path in abstract_leaves}
    exported = export_tensors(ddt_entries(abstract), flat)
    for key, norm in settings["gradient_norms"].items():
        assert np.linalg.norm(exported[key]) == pytest.approx(norm, rel=1e-4), key
    recorded = [key.removeprefix("grad/") for key in golden if key.startswith("grad/")]
    assert len(recorded) > 5
    for key in recorded:
        assert relative_error(exported[key], golden[f"grad/{key}"]) < 1e-4, key


def test_training_goes_on_from_a_released_file_with_the_loss_of_that_file():
    """Through config, task and `ddt.pretrained`, as --mode=train does."""
    golden = arrays("raev2/dit_default")
    config = small_config(
        **{
            "encoder.hidden_size": 24,
            "data.num_classes": 10,
            "ddt.pretrained": str(GOLDEN / "raev2" / "dit_default.pt"),
            "ddt.hidden_size": (40, 64),
            "ddt.depth": (4, 2),
            "ddt.num_heads": (5, 4),
            "ddt.use_qknorm": True,
            "ddt.use_pos_embed": False,
            "ddt.conditioning": "tokens",
            "ddt.base_depth": 2,
            "flow.prediction": "x",
            "optim.name": "muon",
            "compute.scan_layers": True,
        }
    )
    task = make_task(config)
    params = task.load_initial(make_mesh(1, jax.devices()[:1]))
    inputs = {
        "latent": jnp.asarray(channels_last(golden["latent"])),
        "noise": jnp.asarray(channels_last(golden["noise"])),
        "t": jnp.asarray(golden["loss_t"]),
        "label": jnp.asarray(golden["loss_y"]),
    }
    loss, _ = jax.jit(task.objective.loss)(params, {}, inputs)
    reference = golden["loss_full_per_sample"] + golden["loss_base_per_sample"]
    np.testing.assert_allclose(loss, reference, rtol=1e-6)


def _flat(tree, prefix=""):
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree}
    return {k: v for name, sub in tree.items() for k, v in _flat(sub, f"{prefix}{name}.").items()}


def test_a_second_head_without_weight_leaves_loss_and_gradient_of_one():
    changes = {"conditioning": "tokens", "prediction": "x", "depth": (3, 1)}
    two, one = awake_ddt(base_depth=1, **changes), awake_ddt(**changes)
    params = nnx.to_pure_dict(nnx.state(two))
    alone = {name: leaf for name, leaf in params.items() if not name.startswith(("base", "upper"))}
    alone["backbone"] = jax.tree.map(
        lambda *parts: jnp.concatenate(parts), params["backbone"], params["upper"]
    )
    inputs = {"latent": X, "noise": X[::-1], "t": T, "label": Y}

    def gradient(ddt, params, base_weight):
        objective = flow_matching(
            nnx.graphdef(ddt),
            nnx.graphdef(ddt),  # of no RAE: inputs are given, nothing is encoded
            null_label=10,
            time_distribution="uniform",
            shift=1.0,
            class_dropout=0.0,
            prediction="x",
            base_weight=base_weight,
        )
        mean = lambda params: jnp.mean(objective.loss(params, {}, inputs)[0])  # noqa: E731
        return jax.jit(jax.value_and_grad(mean))(params)

    loss, grads = gradient(two, params, 0.0)
    expected, expected_grads = gradient(one, alone, None)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert not np.any(grads["base_linear"]["kernel"])
    mine, theirs = grads["embed_s"]["kernel"], expected_grads["embed_s"]["kernel"]
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    lower, upper = (grads[name]["blocks"]["mlp"]["w3"]["kernel"] for name in ("backbone", "upper"))
    theirs = expected_grads["backbone"]["blocks"]["mlp"]["w3"]["kernel"]
    np.testing.assert_allclose(jnp.concatenate([lower, upper]), theirs, rtol=1e-4, atol=1e-6)
