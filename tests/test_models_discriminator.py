"""The discriminator against the reference's numbers, its spectral norms against torch's."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from support.golden_files import GOLDEN, arrays, channels_last, relative_error
from support.reference_heads import heads_entries, read_heads

from rae_dit.architecture import Compute, EncoderArchitecture
from rae_dit.models.discriminator import (
    Heads,
    LocalNorm,
    SpectralConv,
    SpectralVector,
    power_iteration,
)
from rae_dit.models.features import DINO, Features
from rae_dit.weights.discriminator import dino_entries, read_dino
from rae_dit.weights.mapping import WeightsError, export_tensors, parameters_of
from rae_dit.weights.tensor_file import open_tensors, save_tensors

FILE = json.loads((GOLDEN / "disc.json").read_text())
RECIPE = FILE["recipe"]
KERNEL = FILE["kernel_size"]
LAYERS = (RECIPE["depth"] - 1, *RECIPE["key_depths"])  # the reference puts the last block first
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_dino(dtype=jnp.float32, **changes):
    sizes = {
        "input_size": 224,
        "patch_size": RECIPE["patch_size"],
        "position_grid": 224 // RECIPE["patch_size"],
        "hidden_size": RECIPE["embed_dim"],
        "depth": RECIPE["depth"],
        "num_heads": RECIPE["num_heads"],
        "intermediate_size": int(RECIPE["embed_dim"] * RECIPE["mlp_ratio"]),
        "activation": "gelu_tanh",
    }
    compute = Compute(scan_layers=False, dtype=jnp.dtype(dtype).name)
    architecture = EncoderArchitecture(family="dino", **(sizes | changes))
    return DINO(architecture, compute, rngs=nnx.Rngs(0))


def make_heads(dtype=jnp.float32, count=3, width=RECIPE["embed_dim"], rngs=0):
    return Heads(count, width, kernel_size=KERNEL, dtype=dtype, rngs=nnx.Rngs(rngs))


def load(dtype=jnp.float32):
    """Features and heads of the golden files."""
    dino = read_dino(GOLDEN / "disc_dino_tiny.pth", nnx.eval_shape(lambda: make_dino(dtype)))
    heads = nnx.eval_shape(lambda: make_heads(dtype))
    features = Features(dino, image_mean=MEAN, image_std=STD, layers=LAYERS)
    return features, read_heads(GOLDEN / "disc_heads_tiny.pt", heads, kernel_size=KERNEL)


@pytest.fixture(scope="module")
def golden():
    found = arrays("disc")
    return (channels_last(found["image_pm1"]) + 1) / 2, found


def run(module, *inputs):
    graph, parameters = nnx.split(module)
    return jax.jit(lambda p, *x: nnx.merge(graph, p)(*x))(parameters, *inputs)


def test_features_and_logits_are_the_reference_s(golden):
    image, found = golden
    features, heads = load()
    tokens = run(features, image)
    for number, value in enumerate(tokens):
        wanted = found[f"activation{number}"].transpose(0, 2, 1)
        assert relative_error(value, wanted) < 1e-5
    logits = run(heads, tokens)
    assert relative_error(logits, found["logits"]) < 1e-5


def test_bfloat16_is_close_and_gives_float32_logits(golden):
    image, found = golden
    features, heads = load(jnp.bfloat16)
    tokens = run(features, image)
    assert tokens[0].dtype == jnp.bfloat16
    logits = run(heads, tokens)
    assert logits.dtype == jnp.float32
    assert relative_error(logits, found["logits"]) < 0.05


def test_a_training_pass_of_torch_gives_our_next_vectors_kernel_and_gradient():
    """Spectral_norm of torch in train mode: one iteration, then the pass, then the gradient."""
    size, inputs, outputs = 3, 5, 4
    conv = torch.nn.Conv1d(inputs, outputs, size, padding=1, padding_mode="circular")
    conv = torch.nn.utils.spectral_norm(conv, n_power_iterations=1, eps=1e-12)
    numbers = np.random.default_rng(0)
    x = numbers.standard_normal((2, 7, inputs)).astype(np.float32)

    def ours():
        """(parameters, vectors) as torch has them now."""
        layout = {"u": conv.weight_u, "v": conv.weight_v.reshape(inputs, size).T}
        kernel = conv.weight_orig.detach().permute(2, 1, 0)
        parameters = {"kernel": kernel, "bias": conv.bias.detach()}
        return tuple(
            {name: jnp.asarray(value.numpy()) for name, value in tree.items()}
            for tree in (parameters, layout)
        )

    parameters, vectors = ours()
    conv.train()
    leaf = torch.tensor(x, requires_grad=True)
    y = conv(leaf.transpose(1, 2))
    weight = torch.tensor(numbers.standard_normal(y.shape).astype(np.float32))
    (y * weight).sum().backward()
    after = power_iteration(parameters, vectors)
    for name, value in ours()[1].items():
        np.testing.assert_allclose(after[name], value, atol=1e-6)
        assert not np.allclose(vectors[name], value, atol=1e-3)

    layer = SpectralConv(inputs, outputs, size, dtype=jnp.float32, rngs=nnx.Rngs(0))
    graph = nnx.graphdef(layer)

    def loss(parameters, x):
        values = nnx.merge(graph, parameters | after)(x)
        return jnp.sum(values * weight.numpy().transpose(0, 2, 1)), values

    differentiate = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, values), (gradient, x_gradient) = differentiate(parameters, jnp.asarray(x))
    np.testing.assert_allclose(values, y.detach().numpy().transpose(0, 2, 1), atol=1e-5)
    wanted = conv.weight_orig.grad.permute(2, 1, 0).numpy()
    np.testing.assert_allclose(gradient["kernel"], wanted, atol=1e-5)
    np.testing.assert_allclose(gradient["bias"], conv.bias.grad.numpy(), atol=1e-5)
    np.testing.assert_allclose(x_gradient, leaf.grad.numpy(), atol=1e-5)


def test_iterations_find_the_largest_singular_value_of_every_stacked_kernel():
    heads = make_heads(count=2, width=6, rngs=3)
    _, parameters, vectors = nnx.split(heads, nnx.Param, SpectralVector)
    parameters, vectors = nnx.to_pure_dict(parameters), nnx.to_pure_dict(vectors)
    before, iterate = vectors, jax.jit(power_iteration)
    for _ in range(200):
        vectors = iterate(parameters, vectors)
    assert jax.tree.structure(vectors) == jax.tree.structure(before)
    for name in ("enter", "mix", "judge"):
        for row in range(2):
            kernel = np.asarray(parameters["heads"][name]["kernel"][row])
            found = vectors["heads"][name]
            matrix = kernel.reshape(-1, kernel.shape[-1])
            sigma = found["v"][row].reshape(-1) @ matrix @ found["u"][row]
            np.testing.assert_allclose(sigma, np.linalg.norm(matrix, 2), rtol=1e-4)


def test_the_last_token_is_the_neighbour_of_the_first():
    heads = make_heads(count=1, width=4)
    x = jax.random.normal(jax.random.key(0), (2, 16, 4))
    np.testing.assert_allclose(
        heads([jnp.roll(x, 5, axis=1)]), jnp.roll(heads([x]), 5, axis=1), atol=1e-5
    )


def test_images_of_a_batch_do_not_see_each_other():
    heads = make_heads(count=1, width=4)
    x = jax.random.normal(jax.random.key(0), (3, 9, 4)) * jnp.asarray([1, 5, 9.0])[:, None, None]
    alone = jnp.concatenate([heads([x[i : i + 1]]) for i in range(3)])
    np.testing.assert_allclose(heads([x]), alone, atol=1e-5)
    y = LocalNorm(4)(x)
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(axis=1), 1, atol=1e-4)


def test_a_forward_pass_changes_no_vector():
    heads = make_heads(count=1, width=4)
    before = parameters_of(heads)
    heads([jnp.ones((1, 9, 4))])
    for path, value in parameters_of(heads).items():
        np.testing.assert_array_equal(value, before[path])


def test_names_of_both_files_survive_a_round_trip():
    features, heads = load()
    for module, entries, name in (
        (features.network, dino_entries(features.network), "disc_dino_tiny.pth"),
        (heads, heads_entries(len(LAYERS), KERNEL), "disc_heads_tiny.pt"),
    ):
        tensors = open_tensors(GOLDEN / name)
        written = export_tensors(entries, parameters_of(module))
        assert written.keys() == {key for key in tensors if not key.startswith("norm.")}
        for key, value in written.items():
            np.testing.assert_array_equal(value, tensors[key])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("blocks.1.mlp.fc1.bias"), "1 missing"),
        (lambda tensors: tensors.update({"blocks.3.norm1.bias": np.zeros(48)}), "1 not known"),
        (lambda tensors: tensors.update({"pos_embed": np.zeros((1, 785, 48))}), "1 misshapen"),
    ],
)
def test_a_file_of_another_network_is_refused(tmp_path, change, message):
    tensors = dict(open_tensors(GOLDEN / "disc_dino_tiny.pth"))
    change(tensors)
    save_tensors(tmp_path / "dino.pth", tensors)
    with pytest.raises(WeightsError, match=message):
        read_dino(tmp_path / "dino.pth", nnx.eval_shape(make_dino))


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match=r"blocks 0 \.\.\. 2"):
        Features(nnx.eval_shape(make_dino), image_mean=MEAN, image_std=STD, layers=(0, 3))
    with pytest.raises(ValueError, match=r"position_grid: got 3; expected 14 = input_size"):
        nnx.eval_shape(lambda: make_dino(position_grid=3))
    with pytest.raises(ValueError, match="odd"):
        Heads(1, 4, kernel_size=4, dtype=jnp.float32, rngs=nnx.Rngs(0))


def test_convolutions_are_products_whose_neighbours_are_not_kept():
    """On CPUs, XLA takes 20 times longer for a convolution inside `lax.cond`, as in stage 1."""
    graph, parameters = nnx.split(make_heads(count=1, width=4))
    features = [jnp.ones((1, 16, 4))]

    def logits(parameters):
        return jnp.sum(nnx.merge(graph, parameters)(features))

    program = jax.jit(jax.grad(logits)).lower(parameters).as_text()
    assert "dot_general" in program
    assert "convolution" not in program
    _, pull_back = jax.vjp(logits, parameters)
    kept = [leaf.shape for leaf in jax.tree.leaves(pull_back) if hasattr(leaf, "shape")]
    assert (1, 16, 4) in kept
    assert (1, 16, 4 * KERNEL) not in kept
