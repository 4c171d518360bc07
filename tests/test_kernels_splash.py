"""The TPU kernel, interpreted, beside plain attention: values, gradients, odd lengths, a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, use_abstract_mesh

from rae_dit.kernels.splash import splash_attention
from rae_dit.models.attention import choose_attention, dot_product_attention
from rae_dit.models.platform import target_devices
from rae_dit.training.sharding import batch_sharding, make_mesh


def inputs(tokens: int, width: int, batch: int = 2, heads: int = 2) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (batch, tokens, heads, width)
    return [2 * jax.random.normal(key, shape) for key in keys]


def value_and_gradient(attention, q, k, v, slope):
    return jax.value_and_grad(
        lambda q, k, v: jnp.sum(attention(q, k, v) * slope), argnums=(0, 1, 2)
    )(q, k, v)


@pytest.mark.parametrize(("tokens", "width"), [(128, 72), (256, 64), (130, 72)])
def test_values_and_gradients(tokens: int, width: int) -> None:
    q, k, v, slope = inputs(tokens, width)
    mine = splash_attention(q, k, v, interpret=True)
    plain = jax.nn.dot_product_attention(q, k, v)
    np.testing.assert_allclose(mine, plain, atol=2e-5)
    mine = value_and_gradient(lambda *x: splash_attention(*x, interpret=True), q, k, v, slope)
    plain = value_and_gradient(jax.nn.dot_product_attention, q, k, v, slope)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)


def test_bfloat16_stays_near_float32() -> None:
    q, k, v, _ = (x.astype(jnp.bfloat16) for x in inputs(128, 64))
    mine = splash_attention(q, k, v, interpret=True)
    assert mine.dtype == jnp.bfloat16
    plain = jax.nn.dot_product_attention(*(x.astype(jnp.float32) for x in (q, k, v)))
    error = jnp.linalg.norm(mine.astype(jnp.float32) - plain) / jnp.linalg.norm(plain)
    assert error < 0.01


def test_each_device_of_a_mesh_attends_its_own_examples() -> None:
    mesh = make_mesh(2, jax.devices()[:4])
    q, k, v, _ = inputs(128, 64, batch=4)
    plain = splash_attention(q, k, v, interpret=True)
    split = [jax.device_put(x, batch_sharding(mesh)) for x in (q, k, v)]

    @jax.jit
    def attend(q, k, v):
        with use_abstract_mesh(mesh.abstract_mesh):
            return splash_attention(q, k, v, interpret=True)

    mixed = attend(*split)
    np.testing.assert_allclose(mixed, plain, atol=1e-6)
    assert mixed.sharding.shard_shape(mixed.shape)[0] == 1
    with (
        use_abstract_mesh(mesh.abstract_mesh),
        pytest.raises(ValueError, match="batch of 3 does not divide among 4 devices"),
    ):
        splash_attention(q[:3], k[:3], v[:3], interpret=True)


@pytest.mark.parametrize(
    ("platform", "devices", "half", "batch", "tokens", "width", "expected"),
    [
        ("gpu", 8, True, 6, 256, 72, "cudnn"),
        ("gpu", 8, False, 8, 1024, 72, "xla"),
        ("gpu", 1, True, 8, 256, 12, "xla"),  # cuDNN raises: "a multiple of 8, but got 12"
        ("tpu", 8, True, 8, 1024, 72, "splash"),
        ("tpu", 1, True, 3, 512, 72, "splash"),
        ("tpu", 8, True, 8, 256, 72, "xla"),  # little to gain
        ("tpu", 8, True, 6, 1024, 72, "xla"),  # does not divide
        ("tpu", None, True, 8, 1024, 72, "xla"),  # nobody knows how it is split
        ("tpu", 8, False, 8, 1024, 72, "xla"),
        ("cpu", 1, True, 8, 1024, 72, "xla"),
    ],
)
def test_what_auto_means(platform, devices, half, batch, tokens, width, expected) -> None:
    chosen = choose_attention(
        platform, devices, half=half, batch=batch, tokens=tokens, head_width=width
    )
    assert chosen == expected


def test_the_mesh_in_force_says_for_which_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert target_devices() == ("cpu", None)  # eight of them, and no mesh
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert target_devices() == ("cpu", 1)
    absent = AbstractMesh(
        (4, 2),
        ("replica", "fsdp"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        abstract_device=AbstractDevice("TPU v5 lite", None, "tpu"),
    )
    with use_abstract_mesh(absent):
        assert target_devices() == ("tpu", 8)


def test_an_unknown_kernel_is_refused() -> None:
    q = jnp.zeros((1, 2, 1, 4))
    with pytest.raises(ValueError, match="attention: got 'flash'; expected 'auto', 'xla'"):
        dot_product_attention(q, q, q, implementation="flash")
    with pytest.raises(ValueError, match="'cudnn' for heads of 4 channels; expected a multiple"):
        dot_product_attention(q, q, q, implementation="cudnn")
