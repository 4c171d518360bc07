"""The compiled step: one trace, donation, devices, and its golden values."""

import jax
import numpy as np
import pytest
from support.compile_flags import EMITTERS, known
from support.small_run import assert_trees_equal, batches, host, small_config, take_steps

from rae_dit import compiler
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh, shard_batch


def test_one_trace_over_five_steps_and_donated_buffers_are_gone():
    config = small_config()
    mesh = make_mesh(1, jax.devices()[:1])
    program = make_program(config, mesh)
    state, frozen = program.create(), make_task(config).load_frozen(mesh)
    for batch in batches(config, 5):
        before = state
        state, _ = program.step(state, frozen, shard_batch(batch, mesh))
        gone = [leaf.is_deleted() for leaf in jax.tree.leaves((before.params, before.ema))]
        assert all(gone)
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(frozen))
    assert program.step._cache_size() == 1


def test_a_step_on_bytes_has_the_bits_of_one_on_floats(monkeypatch: pytest.MonkeyPatch):
    # As users' programs are compiled: without its emitters, XLA fuses the two differently.
    if known(EMITTERS):
        monkeypatch.setitem(compiler.OPTIONS, "cpu", {EMITTERS: True})
    # A loss that looks at the pixels, too; little to compile.
    config = small_config(**{"objective": "reconstruction", "encoder.depth": 1, "decoder.depth": 1})
    mesh = make_mesh(1, jax.devices()[:1])
    program, frozen = make_program(config, mesh), make_task(config).load_frozen(mesh)
    floats = batches(config, 1)[0]
    levels = np.rint(floats["image"] * 255).astype(np.uint8)
    found = [
        program.step(program.create(), frozen, shard_batch(floats | {"image": image}, mesh))
        for image in (levels, floats["image"])
    ]
    assert levels.max() > 200
    assert_trees_equal(*found)


def test_every_function_asks_for_the_options_of_its_platform(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(compiler.OPTIONS, "cpu", {"no_such_option": True})
    config = small_config()
    mesh = make_mesh(1, jax.devices()[:1])
    program = make_program(config, mesh)
    frozen = make_task(config).load_frozen(mesh)
    images = batches(config, 1)[0]
    images["weight"] = np.ones(len(images["label"]), np.float32)
    batch = shard_batch(images, mesh)
    seen = (program.abstract.params, frozen, batch)
    for function, arguments in (
        (program.create, ()),
        (program.step, (program.abstract, frozen, batch)),
        (program.validate, (*seen, jax.random.key(0))),
        (program.telemetry, (*seen, jax.random.key(0))),
    ):
        with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
            function.lower(*arguments).compile()


def test_ema_starts_as_a_copy():
    state = make_program(small_config(), make_mesh(1, jax.devices()[:1])).create()
    jax.tree.map(np.testing.assert_array_equal, host(state.params), host(state.ema))
    pointers = lambda tree: {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}  # noqa: E731
    assert not pointers(state.params) & pointers(state.ema)


@pytest.fixture(scope="module")
def one_device():
    return take_steps(small_config(), 3)


@pytest.mark.parametrize(
    "fsdp",
    [1, 8, pytest.param(2, marks=pytest.mark.slow)],
    ids=["data parallel", "FSDP", "HSDP"],
)
def test_eight_devices_train_as_one(one_device, fsdp):
    _, expected, expected_metrics = one_device
    program, state, metrics = take_steps(small_config(**{"sharding.fsdp": fsdp}), 3, devices=8)
    for ours, theirs in zip(metrics, expected_metrics, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-4)
    # Adam divides by the gradient's size, which magnifies rounding where gradients are tiny.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        host(state.params),
        host(expected.params),
    )
    kernel = state.params["backbone"]["blocks"]["mlp"]["w12"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // fsdp
    moments = jax.tree.leaves(state.opt_state)
    assert {leaf.sharding for leaf in moments} <= {
        leaf.sharding for leaf in jax.tree.leaves(program.abstract)
    }
    assert any(leaf.addressable_shards[0].data.size < leaf.size for leaf in moments) == (fsdp > 1)


@pytest.mark.slow
def test_kernels_split_along_another_axis_train_as_whole_ones():
    """Three devices do not divide a width of 32, but q|k|v, the MLP's and the modulation's."""
    sizes = {"ddt.hidden_size": (32, 32), "ddt.mlp_ratio": 4.5, "data.batch_size": 24}
    _, _, expected = take_steps(small_config(**sizes), 3)
    _, state, found = take_steps(small_config(**sizes, **{"sharding.fsdp": 3}), 3, devices=6)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-4)
    blocks = state.params["backbone"]["blocks"]
    for kernel in (blocks["attention"]["qkv"], blocks["mlp"]["w12"], blocks["mlp"]["w3"]):
        assert kernel["kernel"].addressable_shards[0].data.size == kernel["kernel"].size // 3


def test_golden_step(one_device):
    """Loss, gradient norm and size of the EMA's way after steps 1 and 3.

    A change here says that training computes something else than it did: decide whether it should.
    """
    program, state, metrics = one_device
    start = host(program.create().ema)
    way = jax.tree.map(lambda a, b: np.sum(np.square(a - b)), host(state.ema), start)
    found = [
        metrics[0]["loss"],
        metrics[0]["gradient_norm"],
        metrics[2]["loss"],
        metrics[2]["gradient_norm"],
        float(np.sqrt(sum(jax.tree.leaves(way)))),
    ]
    np.testing.assert_allclose(found, GOLDEN_STEP, rtol=1e-4)


GOLDEN_STEP = [1.92333, 1.49105, 1.9603, 1.35593, 0.00858732]
