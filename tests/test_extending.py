"""The code in docs/extending.md does what the page says."""

import re
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from PIL import Image
from support.simulated_processes import on_each
from transformers import ViTConfig, ViTModel

import rae_dit
from rae_dit.data.files import Images, SourceError
from rae_dit.data.readers import describe
from rae_dit.diffusion import flow
from rae_dit.diffusion.guidance import VelocityField
from rae_dit.evaluation import metrics
from rae_dit.evaluation.metric_state import MetricState, over_processes
from rae_dit.evaluation.metrics.base import Features
from rae_dit.models import encoders
from rae_dit.objectives.base import Objective
from rae_dit.weights import encoder_config

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()


def section(title):
    """Executes the first code block under a heading and returns its names."""
    block = PAGE.split(f"## {title}\n")[1].split("```python\n")[1].split("```")[0]
    names = {"__name__": "extension"}
    exec(block, names)
    return names


class Scale(nnx.Module):
    """velocity = factor x."""

    def __init__(self, factor):
        self.factor = nnx.Param(jnp.asarray(factor))

    def __call__(self, x, t, label):
        return self.factor[...] * x


@pytest.fixture
def inputs():
    keys = jax.random.split(jax.random.key(0), 2)
    latent, noise = (jax.random.normal(key, (3, 2, 2, 4)) for key in keys)
    return {
        "latent": latent,
        "noise": noise,
        "t": jnp.array([0.2, 0.5, 1.0]),
        "label": jnp.arange(3),
    }


def directed(factor, weight):
    graph, state = nnx.split(Scale(factor))
    base = Objective(lambda frozen, batch, key: batch, lambda *_: None)
    return section("An objective")["directed_flow"](base, graph, weight=weight), nnx.to_pure_dict(
        state
    )


def test_objective_adds_the_direction_term(inputs):
    objective, params = directed(2.0, weight=0.5)
    assert objective.sample_inputs({}, inputs, None) is inputs
    losses, values = objective.loss(params, {}, inputs)
    x_t = flow.interpolate(inputs["latent"], inputs["noise"], inputs["t"])
    v = np.asarray(2 * x_t).reshape(3, -1)
    u = np.asarray(inputs["noise"] - inputs["latent"]).reshape(3, -1)
    cosine = (v * u).sum(1) / np.linalg.norm(v, axis=1) / np.linalg.norm(u, axis=1)
    np.testing.assert_allclose(values["cosine"], cosine, rtol=1e-5)
    np.testing.assert_allclose(losses, ((v - u) ** 2).mean(1) + 0.5 * (1 - cosine), rtol=1e-5)


def test_objective_has_a_gradient_where_the_network_starts(inputs):
    objective, params = directed(0.0, weight=0.5)
    gradient = jax.grad(lambda p: objective.loss(p, {}, inputs)[0].mean())(params)
    assert np.isfinite(gradient["factor"])


def test_solver_is_of_order_two():
    solver = section("A solver")["Midpoint"]()
    field = VelocityField(lambda x, t: x * jnp.cos(t)[:, None])
    start = jnp.ones((1, 1), jnp.float32)
    errors = []
    for steps in (16, 32, 64):
        end = solver.integrate(start, solver.times(steps, 1.0, grid="full"), field)
        errors.append(abs(float(end[0, 0]) - np.exp(np.sin(0.0) - np.sin(1.0))))
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    np.testing.assert_allclose(slopes, 2, atol=0.2)


def test_metric_is_that_of_all_images(monkeypatch):
    metric = section("A metric")["FeatureNorm"]
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, metric))
    pool = np.random.default_rng(0).normal(size=(10, 5)).astype(np.float32)
    parts = []
    for rows in (slice(0, 3), slice(3, 10)):
        state = MetricState.of((metric,))
        state.update(np.arange(10)[rows], Features(pool=pool[rows]), None)
        parts.append(state)
    (whole, _), _ = on_each(2, lambda one: over_processes(parts[one.index], one))
    values = whole.compute(("feature_norm",), None)
    assert values["feature_norm"] == pytest.approx(np.linalg.norm(pool, axis=1).mean())
    one = metric(total=3.0, count=2)
    assert metric.from_arrays(one.to_arrays()).compute(None) == {"feature_norm": 1.5}


def test_encoder_family_equals_transformers(monkeypatch, tmp_path):
    family = section("An encoder family")["VIT"]
    families = (*encoders.FAMILIES, family)
    for module in (encoders, encoder_config):  # both hold the name
        monkeypatch.setattr(module, "FAMILIES", families)
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = ViTConfig(**sizes, intermediate_size=96, image_size=32, patch_size=8)
    model = ViTModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.ones_(model.layernorm.weight)
    torch.nn.init.zeros_(model.layernorm.bias)
    model.save_pretrained(tmp_path)
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    with torch.no_grad():
        pixels = torch.from_numpy(2 * image - 1).permute(0, 3, 1, 2)
        expected = model(pixels).last_hidden_state[:, 1:].numpy()
    tokens = rae_dit.load_rae(encoder=tmp_path).tokens(jnp.asarray(image))
    np.testing.assert_allclose(tokens, expected, atol=1e-5)


def test_reader_reads_an_archive(tmp_path):
    names = section("A data source")
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "")
    with pytest.raises(SourceError, match="without images"):
        names["open_zip"](str(path))
    with zipfile.ZipFile(path, "a") as archive:
        for place in ("dog/1.jpg", "cat/2.jpg", "cat/1.jpg"):
            file = tmp_path / "one.jpg"
            Image.new("RGB", (16, 16), (len(place), 0, 0)).save(file)
            archive.write(file, place)
    files = names["open_zip"](str(path))
    assert [files.name(i).split(":")[1] for i in range(3)] == [
        "cat/1.jpg",
        "cat/2.jpg",
        "dog/1.jpg",
    ]
    source = Images(files, image_size=8, num_classes=2, crop="adm_center", max_bad_share=0.0)
    line = "3 images of 2 classes from 1 file; left out: 1 members that are no .jpg"
    assert describe(source) == line
    assert [source[i]["label"] for i in range(3)] == [0, 0, 1]
    assert source[0]["image"].shape == (8, 8, 3)
    assert re.fullmatch(r"zip/[0-9a-f]{12}/8/adm_center", source.fingerprint)


def test_optimizer_takes_steps_of_equal_size():
    lion = section("An optimizer")["lion"]
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([3.0])}
    mask = {"a": True, "b": False}
    optimizer = lion(
        lambda step: 0.1, beta1=0.9, beta2=0.99, weight_decay=0.5, clip_norm=1.0, decay_mask=mask
    )
    gradients = {"a": jnp.array([5.0, -0.1]), "b": jnp.array([0.2])}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    new = optax.apply_updates(params, updates)
    np.testing.assert_allclose(new["a"], [1 - 0.1 * (1 + 0.5), -2 + 0.1 * (1 + 0.5 * 2)], rtol=1e-6)
    np.testing.assert_allclose(new["b"], [3 - 0.1], rtol=1e-6)
