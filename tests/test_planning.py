"""What a plan reads and computes, piece by piece: program text, traffic, memory, time, advice."""

import multiprocessing
import threading

import jax
import pytest
from jax.sharding import AbstractMesh
from support.small_run import small_config

from configs import dit2_dinov3, dit_dino
from rae_dit import flops
from rae_dit.config import ConfigError, from_config_dict
from rae_dit.hardware import DEVICES, find_device
from rae_dit.planning import cross_compile, hlo, roofline, topology
from rae_dit.planning.advice import advise
from rae_dit.planning.compiled import Compiled, needed_bytes
from rae_dit.planning.max_batch import Point, largest_batch, second_batch
from rae_dit.planning.memory import Memory, Replicated, best_fsdp, local_bytes
from rae_dit.planning.traffic import Traffic, count_traffic, group_size, sent_bytes
from rae_dit.setup import models
from rae_dit.setup.objectives import make_task
from rae_dit.setup.weights import shapes

GIB = 2**30
H200 = find_device("NVIDIA H200")
V5E = find_device("TPU v5 lite")

PROGRAM = """HloModule jit_step, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%a, %b)
}

%take_layer (p0: f32[5,4,8], p1: s32[]) -> f32[4,8] {
  %p0 = f32[5,4,8]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %one.layer = f32[1,4,8]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,4,8}
  ROOT %flat = f32[4,8]{1,0} bitcast(%one.layer)
}

%put_layer (q0: f32[5,4,8], q1: f32[4,8], q2: s32[]) -> f32[5,4,8] {
  %q0 = f32[5,4,8]{2,1,0} parameter(0)
  %q1 = f32[4,8]{1,0} parameter(1)
  %q2 = s32[] parameter(2)
  %zero.1 = s32[] constant(0)
  %raised = f32[1,4,8]{2,1,0} bitcast(%q1)
  ROOT %put = f32[5,4,8]{2,1,0} dynamic-update-slice(%q0, %raised, %q2, %zero.1, %zero.1)
}

%multiply (m0: bf16[2,4], m1: bf16[4,8]) -> bf16[2,8] {
  %m0 = bf16[2,4]{1,0} parameter(0)
  %m1 = bf16[4,8]{1,0} parameter(1)
  ROOT %dot.1 = bf16[2,8]{1,0} dot(%m0, %m1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (state: (s32[], f32[5,4,8], f32[4,8])) -> (s32[], f32[5,4,8], f32[4,8]) {
  %state = (s32[], f32[5,4,8]{2,1,0}, /*index=2*/f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %stack = f32[5,4,8]{2,1,0} get-tuple-element(%state), index=1
  %layer = f32[4,8]{1,0} fusion(%stack, %i), kind=kLoop, calls=%take_layer
  %whole = f32[4,16]{1,0} all-gather(%layer), channel_id=1, replica_groups=[4,2]<=[8]
  %stacked = f32[5,4,8]{2,1,0} fusion(%stack, %layer, %i), kind=kLoop, calls=%put_layer
  ROOT %next = (s32[], f32[5,4,8]{2,1,0}, f32[4,8]{1,0}) tuple(%i, %stacked, %layer)
}

%condition (state.1: (s32[], f32[5,4,8], f32[4,8])) -> pred[] {
  %state.1 = (s32[], f32[5,4,8]{2,1,0}, f32[4,8]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %limit = s32[]{:T(128)} constant(5)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (x: f32[4,8], w: bf16[2,4], v: bf16[4,8]) -> f32[8] {
  %x = f32[4,8]{1,0} parameter(0)
  %w = bf16[2,4]{1,0} parameter(1)
  %v = bf16[4,8]{1,0:T(8,128)(2,1)S(1)} parameter(2)
  %y = bf16[2,8]{1,0} fusion(%w, %v), kind=kOutput, calls=%multiply, metadata={op_name="jit(f)"}
  %init = (s32[], f32[5,4,8]{2,1,0}, f32[4,8]{1,0}) tuple(%x, %x, %x)
  %loop = (s32[], f32[5,4,8]{2,1,0}, f32[4,8]{1,0}) while(%init), condition=%condition, body=%body
  %out = f32[4,8]{1,0} get-tuple-element(%loop), index=2
  %start = f32[4,8]{1,0} all-reduce-start(%out), channel_id=2, replica_groups={{0,1,2,3}}
  %done = f32[4,8]{1,0} all-reduce-done(%start)
  ROOT %small = f32[8]{0} slice(%done), slice={[0:1], [0:8]}
}
"""


def test_how_often_everything_runs():
    program = hlo.parse(PROGRAM)
    assert hlo.executions(program) == {"main": 1, "body": 5}
    known = PROGRAM.replace(
        "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}'
    )
    assert hlo.executions(hlo.parse(known)) == {"main": 1, "body": 7}


def test_bytes_of_a_program_by_hand():
    layer = 4 * 8 * 4
    found = count_traffic(hlo.parse(PROGRAM), num_devices=8)
    # The product reads w and writes y; v lies on the chip.
    assert found.product_bytes == 2 * (2 * 4 + 2 * 8)
    # Each turn reads one layer of the stack (and its number), writes it, and writes one back.
    turn = (layer + 4) + layer + (layer + 4) + layer
    assert found.other_bytes == 5 * turn + 2 * (8 * 4)
    assert found.collectives == {
        "all-gather": 5 * (2 * layer) * 1 // 2,
        "all-reduce": 2 * layer * 3 // 4,
    }


def test_slices_have_one_name_in_both_texts():
    """As `as_text()` writes them and as the compiler's files do."""
    body = """%part (s0: f32[4,8]) -> f32[1,8] {
  %s0 = f32[4,8]{1,0} parameter(0)
  ROOT %s1 = f32[1,8]{1,0:S(1)} slice(%s0), slice={[0:1], [0:8]}
}

%body (state"""
    short = """  %begun = ((f32[4,8]), f32[1,8]{1,0:S(1)}, s32[]) slice-start(%done)
  %ended = f32[1,8]{1,0:S(1)} slice-done(%begun)
"""
    long = short.replace("slice-start(%done)", "async-start(%done), calls=%part")
    long = long.replace("slice-done", "async-done")
    texts = [
        PROGRAM.replace("%body (state", body, 1).replace("  ROOT %small", added + "  ROOT %small")
        for added in ("", short, long)
    ]
    none, as_text, in_files = (count_traffic(hlo.parse(text), num_devices=8) for text in texts)
    assert as_text == in_files
    assert in_files.other_bytes == none.other_bytes + 8 * 4


def with_collective(program, fusion):
    """The program with a fusion of this name in its loop, which holds part of an all-reduce."""
    reduced = f"""%inside.{fusion} (r0: f32[8]) -> f32[8] {{
  %r0.{fusion} = f32[8]{{0}} parameter(0)
  ROOT %p.{fusion} = f32[8] all-reduce(%r0.{fusion}), channel_id=9, replica_groups=[4,2]<=[8]
}}

%body (state"""
    user = f"%{fusion} = f32[8] fusion(%layer), calls=%inside.{fusion}\n  ROOT %next"
    return program.replace("%body (state", reduced).replace("ROOT %next", user)


def test_fusions_that_share_a_collective_send_it_once():
    def collectives(text):
        return count_traffic(hlo.parse(text), num_devices=8).collectives

    before = collectives(PROGRAM)
    once = with_collective(PROGRAM, "fusion.1")
    assert collectives(once) == before | {"all-reduce": before["all-reduce"] + 5 * 8 * 4}
    assert collectives(with_collective(once, "fusion.2")) == collectives(once)
    scattered = with_collective(PROGRAM, "all-reduce-scatter.1")
    assert collectives(scattered) == before | {"reduce-scatter": 5 * 8 * 4 // 2}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("f32[2,3]{1,0:T(8,128)}", 24),
        ("bf16[2,3]", 12),
        ("pred[]", 1),
        ("(f32[2]{0}, /*index=1*/s8[5]{0}, token[])", 13),
        ("f8e4m3fn[7]", 7),
        ("s4[6]", 3),
        ("f32[4]{0:S(1)}", 16),
    ],
)
def test_shapes_have_bytes(shape, expected):
    assert hlo.shape_bytes(shape) == expected


def test_what_is_not_in_main_memory_does_not_count():
    shape = "(f32[4]{0:S(1)}, f32[2]{0:T(128)}, f32[8]{0:S(5)})"
    assert hlo.shape_bytes(shape, main_memory=True) == 8


def test_only_programs_are_parsed():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.parse("no program\n")


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("replica_groups={{0,1,2},{3,4,5}}, x", 3),
        ("replica_groups=[2,128]<=[256], x", 128),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", 4),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=16] {'axis_1'}", 16),
        ("replica_groups=mesh['a'=2,'b'=16] {'a','b'}", 32),
        ("channel_id=3", 8),
    ],
)
def test_group_sizes(rest, expected):
    assert group_size(rest, num_devices=8) == expected


def test_bytes_sent():
    assert sent_bytes("all-gather", 100, 4) == 75
    assert sent_bytes("all-reduce", 100, 4) == 150
    assert sent_bytes("collective-permute", 100, 4) == 100
    assert sent_bytes("all-reduce", 100, 1) == 0


def test_products_take_as_long_as_they_did_on_an_h200():
    """docs/performance.md: both made the law of hardware.py; this pins that it still tells them."""

    def rate(rows, inner, columns):
        time = roofline.seconds(rows, inner, columns, 1, "bf16", H200)
        return 2 * rows * inner * columns / time / 1e12

    assert rate(8192, 8192, 8192) == pytest.approx(802, rel=0.01)
    assert rate(32768, 1152, 6144) == pytest.approx(640, rel=0.01)

    layer = [product._replace(times=16) for product in flops.attention_matmuls(256, 1152, 16, 1)]
    attention = [product for product in layer if not product.weighted]
    shapes = [shape for product in attention for shape in roofline.batched(product, 128)]
    found = 1e3 * sum(roofline.seconds(*shape, "bf16", H200) for shape in shapes)
    assert found == pytest.approx(5.1 / 28, rel=0.1)
    assert 1e3 * compute(xl(precision="bf16")) == pytest.approx(175.4 + 28.0, rel=0.1)


def xl(**changes):
    values = dit_dino.get_config()
    values.update_from_flattened_dict(changes)
    return from_config_dict(values)


def compute(config, device=H200, images=128):
    return roofline.compute_seconds(config, make_task(config).work, device, images)


def test_time_of_products_follows_the_work():
    config = xl(precision="bf16")
    assert compute(config, images=256) == pytest.approx(2 * compute(config), rel=0.03)
    times = [compute(xl(precision="bf16", **{"compute.remat": policy})) for policy in REMATS]
    assert times == sorted(set(times))
    forward = flops.total(flops.ddt_matmuls(config)) / flops.train_flops(make_task(config).work)
    assert times[2] / times[0] == pytest.approx(1 + forward, rel=0.1)
    parts = xl(precision="bf16", **{"optim.accumulate_steps": 4})
    assert compute(config) < compute(parts) < 1.1 * compute(config)
    assert compute(xl(precision="tf32")) > 1.9 * compute(config)


def test_muon_takes_its_time_once_a_step_and_devices_share_it():
    config = from_config_dict(dit2_dinov3.get_config())
    work = make_task(config).work
    assert compute(config) > 0  # of a backbone without modulation, too
    alone, shared, more = (
        roofline.optimizer_seconds(config, work, H200, devices) for devices in (1, 8, 8192)
    )
    # 73 ms of a step on one H200 were measured, norms and copies among them (docs/raev2.md).
    assert 0.03 < alone < 0.073
    assert alone / 8 < shared < alone / 5
    assert alone / 100 < more < shared  # a matrix is never split


REMATS = ("none", "dots", "full")


def test_a_tpu_fills_its_tiles():
    padded = roofline.seconds(256, 72, 256, 1, "bf16", V5E)
    assert padded == roofline.seconds(256, 128, 256, 1, "bf16", V5E)
    assert compute(xl(precision="bf16"), V5E, 4) > (
        4 * flops.train_flops(make_task(xl()).work) / (V5E.flops["bf16"] * V5E.matmul_share)
    )


@pytest.mark.parametrize(
    ("device", "changes", "tokens", "again"),
    [
        (H200, {"precision": "bf16"}, 256, True),
        (H200, {"precision": "tf32"}, 256, False),
        (H200, {"precision": "bf16", "compute.attention": "xla"}, 256, False),
        (V5E, {"precision": "bf16"}, 256, False),
        (V5E, {"precision": "bf16"}, 1024, True),
        (V5E, {"precision": "tf32"}, 1024, False),
        (V5E, {"precision": "bf16", "compute.attention": "splash"}, 256, True),
    ],
)
def test_a_fused_kernel_computes_its_logits_again(device, changes, tokens, again):
    products = flops.attention_matmuls(tokens, 1152, 16, 1)
    logits = [product for product in products if product.columns == tokens]
    assert len(logits) == 1
    assert roofline.recomputed(xl(**changes), products, device) == logits * again


def test_the_largest_term_binds_and_kernels_add_up():
    config = xl(precision="bf16", **{"data.batch_size": 128})
    bandwidth = H200.bandwidth * H200.bandwidth_share
    second = int(bandwidth)  # bytes that take one
    line = roofline.predict(config, make_task(config).work, H200, Traffic(0, second, {}), 1)
    assert line.binds == "memory"
    assert line.step == pytest.approx(line.compute + 1)
    line = roofline.predict(config, make_task(config).work, H200, Traffic(second, 0, {}), 1)
    assert line.step == pytest.approx(1)  # products wait for their operands
    sent = {"all-reduce": int(3 * H200.network)}
    line = roofline.predict(config, make_task(config).work, H200, Traffic(0, 0, sent), 1)
    assert line.binds == "network"
    assert line.step == line.network == pytest.approx(3 / H200.network_share)
    assert (
        roofline.predict(config, make_task(config).work, H200, Traffic(0, 0, {}), 1).binds
        == "compute"
    )


def test_facts_are_in_order():
    names = [name for device in DEVICES for name in device.names]
    assert len(names) == len(set(names))
    for device in DEVICES:
        assert device.flops["bf16"] > device.flops["tf32"] > device.flops["fp32"]
        assert GIB < device.memory < 300 * GIB
        assert 0.5 < min(device.matmul_share, device.bandwidth_share, device.network_share) < 1
    assert find_device("cpu") is None


def test_largest_batch_on_a_line():
    first, second = Point(128, 128 * 10 + 7), Point(64, 64 * 10 + 7)
    assert largest_batch(first, second, fixed=100, limit=100 + 7 + 2000, unit=8) == 200
    assert largest_batch(first, second, fixed=100, limit=100 + 7 + 1999, unit=8) == 192
    assert largest_batch(second, first, fixed=100, limit=100 + 7 + 1999, unit=8) == 192
    assert largest_batch(first, second, fixed=100, limit=100, unit=8) == 0
    flat = Point(64, first.growing)
    assert largest_batch(first, flat, fixed=0, limit=10_000, unit=8) == 128


def test_the_second_batch_is_a_smaller_one_where_there_is_one():
    assert second_batch(1024, 256) == 512
    assert second_batch(768, 256) == 256
    assert second_batch(256, 256) == 512


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (282.50G) exceeds available HBM (15.75G).",
            int(282.5 * GIB),
        ),
        ("RESOURCE_EXHAUSTED: Used 18.5G of 15.75G hbm. Exceeded by 2.8G", int(18.5 * GIB)),
        ("INTERNAL: HLO temporaries (3.0G)", None),
        ("RESOURCE_EXHAUSTED: vmem", None),
    ],
)
def test_what_a_refused_program_needs(message, expected):
    assert needed_bytes(message) == expected


BUFFERS = """BufferAssignment:
allocation 0: size 512, thread-local:
 value: <2 reduce_sum.2 @0> (size=512,offset=0): f32[]{:T(128)}
allocation 1: size 4096, parameter 184, shape |f32[1024]| at ShapeIndex {}:
allocation 2: size 8192, parameter 10, shape |f32[2048]| at ShapeIndex {}, maybe-live-out:
allocation 3: size 100, constant:
allocation 4: size 20, output shape is |(f32[5])|, maybe-live-out:
allocation 5: size 3000, preallocated-temp:
 value: <7 fusion.1 @0> (size=3000,offset=0): f32[750]{0}
allocation 6: size 117440512, color 1, preallocated-temp:
"""


def test_bytes_of_buffers_by_hand():
    assert cross_compile.temporary_bytes(BUFFERS) == 100 + 20 + 3000


@pytest.fixture
def pipe():
    receiver, sender = multiprocessing.Pipe(duplex=False)
    yield receiver, sender
    receiver.close()
    sender.close()


def test_a_compile_is_left_when_its_files_are_complete(tmp_path, pipe):
    (tmp_path / "module_0003.jit_step.after_optimizations.txt").write_text(PROGRAM)
    (tmp_path / "m.after_optimizations-buffer-assignment.txt").write_text(BUFFERS)
    (tmp_path / "m.after_optimizations_after_buffer_assignment.txt").write_text(PROGRAM)
    assert cross_compile.await_program(tmp_path, pipe[0]) == Compiled(3120, PROGRAM, 0.0)


def test_a_compile_that_writes_no_files_is_waited_for(tmp_path, pipe):
    (tmp_path / "m.after_optimizations-buffer-assignment.txt").write_text(BUFFERS)
    late = threading.Timer(2 * cross_compile.PATIENCE, pipe[1].send, [Compiled(7, "", 1.0)])
    late.start()
    assert cross_compile.await_program(tmp_path, pipe[0]) == Compiled(7, "", 1.0)
    late.join()
    pipe[1].close()
    with pytest.raises(RuntimeError, match="in a child process"):
        cross_compile.await_program(tmp_path, pipe[0])


@pytest.mark.parametrize("name", ["local", "cpu:8", "v5e:16x16", "v5p:4x4x8", "tpu7x:2x2x1"])
def test_known_topologies(name):
    environment = {"XLA_FLAGS": "--a"}
    topology.prepare(name, environment)
    assert ("TPU_SKIP_MDS_QUERY" in environment) == (name[0] in "vt")
    assert ("device_count=8" in environment["XLA_FLAGS"]) == (name == "cpu:8")
    assert environment["XLA_FLAGS"].startswith("--a")
    assert (environment.get("JAX_PLATFORMS") == "cpu") == (name != "local")
    assert topology.is_compile_only(name) == (name[0] in "vt")


@pytest.mark.parametrize("name", ["v5e", "h100:8", "v5e:16", "cpu:0", "cpu", "v5e:4x4x4x4", "x"])
def test_unknown_topologies(name):
    with pytest.raises(ConfigError, match=r"--topology: got .*expected one such as 'local'"):
        topology.prepare(name, {})


def test_missing_libtpu_is_said(monkeypatch):
    monkeypatch.setattr(topology, "has_libtpu", lambda: False)
    with pytest.raises(ConfigError, match=r"needs libtpu.*requirements-tpu\.txt"):
        topology.find_devices("v5e:4x4")


MEMORY = Memory(
    parameters=GIB,
    ema=GIB,
    optimizer=2 * GIB,
    discriminator=0,
    frozen=0,
    batch=0,
    temporaries=20 * GIB,
)


def advice_for(
    memory=MEMORY,
    replicated=(),
    *,
    on_tpu=False,
    network_binds=False,
    collectives=None,
    largest=64,
    limit=16 * GIB,
    **changes,
):
    lines = advise(
        small_config(**changes),
        memory,
        list(replicated),
        limit=limit,
        best_fsdp=8,
        largest=largest,
        on_tpu=on_tpu,
        network_binds=network_binds,
        collectives=collectives or {},
    )
    return [line.split(":")[0].removeprefix("--config.") for line in lines]


def test_advice_when_it_does_not_fit():
    assert advice_for() == [
        "compute.remat=dots",
        "compute.remat=full",
        "optim.accumulate_steps=2",
        "data.batch_size=64",
    ]
    assert "compute.remat=dots" not in advice_for(**{"compute.remat": "dots"})
    assert "data.batch_size=0" not in advice_for(largest=0)
    assert advice_for(MEMORY._replace(parameters=9 * GIB))[0] == "sharding.fsdp=8"
    assert "compute.scan_layers=False" in advice_for(**{"compute.scan_layers": True})


def test_no_advice_when_it_fits():
    assert advice_for(MEMORY._replace(temporaries=0)) == []
    assert advice_for(limit=None) == []
    fits = MEMORY._replace(temporaries=0)
    assert advice_for(fits, on_tpu=True) == ["compute.scan_layers=True"]
    assert advice_for(fits, network_binds=True) == ["data.batch_size=16"]
    assert advice_for(fits, network_binds=True, largest=15) == []
    assert advice_for(fits, **{"compute.remat": "full"}) == ["compute.remat=dots"]
    assert advice_for(fits, **{"compute.remat": "dots"}) == ["compute.remat=none"]
    tight = MEMORY._replace(temporaries=5 * GIB)  # 9 of 16 GiB
    assert advice_for(tight, **{"compute.remat": "full"}) == []
    whole = [Replicated("w", (1152, 6144), GIB)]
    assert advice_for(fits, whole, **{"sharding.fsdp": 2}) == ["sharding.fsdp=8"]
    assert advice_for(fits, whole, **{"sharding.fsdp": 8}) == []


def test_advice_about_collectives():
    def found(collectives, fsdp=8, **arguments):
        fits = MEMORY._replace(temporaries=0)
        changes = {"sharding.fsdp": fsdp}
        return advice_for(fits, collectives=collectives, largest=0, **arguments, **changes)

    gathers_reduced = {"all-reduce": 9, "reduce-scatter": 9}
    assert found(gathers_reduced) == ["sharding.fsdp=4"]
    assert found(gathers_reduced, fsdp=2) == []
    gradients_reduced = {"all-gather": 9, "all-reduce": 5, "reduce-scatter": 2}
    assert found(gradients_reduced, network_binds=True) == ["sharding.fsdp=4"]
    assert found(gradients_reduced) == []
    half = {"all-gather": 9, "all-reduce": 4, "reduce-scatter": 2}
    assert found(half, network_binds=True) == []
    assert found({}, network_binds=True) == []


# Axes that are split, and how much of each parameter lies on one of 2 x 128 devices.
SHARDINGS = {
    "backbone.blocks.attention.qkv.kernel": ((None, "fsdp", None), (28, 9, 3456)),
    "backbone.blocks.attention.proj.kernel": ((None, None, "fsdp"), (28, 1152, 9)),
    "backbone.blocks.mlp.w12.kernel": ((None, "fsdp", None), (28, 9, 6144)),
    "head.blocks.mlp.w3.kernel": ((None, None, "fsdp"), (2, 5461, 16)),
    "backbone.blocks.norm1.weight": ((), (28, 1152)),
    "label_table": ((None, "fsdp"), (1001, 9)),
}


def test_golden_shardings_of_xl():
    mesh = AbstractMesh((2, 128), ("replica", "fsdp"))
    leaves = jax.tree.leaves_with_path(shapes(models.abstract(models.make_ddt, xl()), mesh))
    found = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    for path, (axes, local) in SHARDINGS.items():
        leaf = found[path]
        assert (tuple(leaf.sharding.spec), leaf.sharding.shard_shape(leaf.shape)) == (axes, local)


def state_gib(replica, fsdp):
    """Parameters, EMA and two moments of DiT^DH-XL on one device of a mesh that is not there."""
    mesh = AbstractMesh((replica, fsdp), ("replica", "fsdp"))
    return 4 * local_bytes(shapes(models.abstract(models.make_ddt, xl()), mesh)) / GIB


@pytest.mark.parametrize(
    ("replica", "fsdp", "expected"),
    [(2, 128, 0.112), (1, 128, 0.112), (1, 256, 2.363), (4, 64, 0.21), (256, 1, 12.5)],
)
def test_golden_state_bytes_of_xl(replica, fsdp, expected):
    """256 divides neither 1152 nor 3456: it keeps attention of the backbone whole."""
    assert state_gib(replica, fsdp) == pytest.approx(expected, rel=0.01)


def test_the_fsdp_with_the_fewest_bytes():
    """Six devices split less than four: 1152 x 3456 falls to 9, and 2048 not at all."""
    ddt = models.abstract(models.make_ddt, xl())
    assert [best_fsdp(ddt, devices) for devices in (256, 128, 12)] == [128, 128, 4]
