"""Whole plans: on eight CPU devices, and for TPUs where libtpu is there to compile for them."""

import json
import pathlib
import sys

import pytest
from absl import flags
from jax.experimental import topologies
from support.small_run import small_config

from configs import dit_dino
from rae_dit import plan as command
from rae_dit.config import ConfigError, from_config_dict
from rae_dit.planning import compiled, cross_compile, memory, planner, topology
from rae_dit.planning.planner import make_plan
from rae_dit.planning.report import report
from rae_dit.storage.errors import StorageError
from rae_dit.training.sharding import make_mesh

ROOT = pathlib.Path(__file__).parent.parent
DUMMY = f"--config={ROOT}/configs/dit_dummy.py"
GIB = 2**30

# Activations outweigh parameters, as in the real thing.
SIZES = {
    "data.batch_size": 64,
    "compute.scan_layers": True,
    "ddt.hidden_size": (64, 64),
    "ddt.depth": (3, 1),
    "encoder.depth": 1,
}


@pytest.fixture(scope="module")
def plans():
    """Data parallel and fully sharded."""
    return {
        fsdp: make_plan(
            small_config(**SIZES, **{"sharding.fsdp": fsdp}), "cpu:8", find_largest=False
        )
        for fsdp in (1, 8)
    }


def test_every_copy_of_the_state_is_split(plans):
    whole, split = plans[1].memory, plans[8].memory
    for copies in ("parameters", "ema", "optimizer"):
        assert getattr(split, copies) < getattr(whole, copies) / 7
    assert whole.parameters == whole.ema
    assert whole.optimizer == pytest.approx(2 * whole.parameters, rel=1e-3)
    assert split.frozen == whole.frozen > 0
    assert split.batch == 8 * (8 * 8 * 3 + 4)  # pixels are bytes


def test_sharded_parameters_leave_activations_alone(plans):
    """Split kernels must not make XLA split activations along their width and copy the batch."""
    assert plans[8].memory.temporaries < 1.1 * plans[1].memory.temporaries
    activation = 8 * 16 * 64 * 4  # of one layer on one device
    assert plans[8].traffic.collectives.get("all-to-all", 0) < activation
    assert plans[8].traffic.collectives.get("collective-permute", 0) < activation


def test_collectives_are_those_of_the_method(plans):
    parameters = plans[1].memory.parameters
    data_parallel, sharded = (plans[fsdp].traffic.collectives for fsdp in (1, 8))
    assert set(data_parallel) == {"all-reduce"}  # of the gradients
    assert data_parallel["all-reduce"] == pytest.approx(2 * parameters * 7 / 8, rel=0.05)
    # Once forward and once backward; what XLA keeps between them is sent once.
    assert 0.9 < sharded["all-gather"] / (parameters * 7 / 8) < 2.1


def test_a_plan_in_words(plans):
    text = report(plans[8])
    assert "8 x cpu, mesh replica 1 x fsdp 8" in text
    assert "batch 64, 8 a device" in text
    assert "No facts about 'cpu'" in text
    assert "all-gather, sent" in text
    assert plans[8].fits is None
    assert plans[8].largest_batch is None


def test_what_is_left_whole_is_named(monkeypatch):
    monkeypatch.setattr(memory, "MENTIONED", 0)
    refused = planner.Compiled(temporary_bytes=3 * GIB, text="", seconds=1.0)
    monkeypatch.setattr(planner, "compile_step", lambda step: refused)
    monkeypatch.setattr(planner, "memory_limit", lambda device, facts: GIB)
    widths = {"ddt.hidden_size": (12, 32), "ddt.num_heads": (3, 2)}
    with pytest.raises(ConfigError, match=r"^sharding.fsdp: got 8; expected 4, the largest .* 28%"):
        make_plan(small_config(**widths, **{"sharding.fsdp": 8}), "cpu:8", find_largest=True)
    plan = make_plan(small_config(**widths, **{"sharding.fsdp": 2}), "cpu:8", find_largest=True)
    largest = plan.replicated[0]
    assert "backbone.blocks.mlp.w12.bias" in [parameter.path for parameter in plan.replicated]
    assert largest.bytes == max(parameter.bytes for parameter in plan.replicated)
    assert any(line.startswith("--config.sharding.fsdp=4:") for line in plan.advice)
    assert plan.fits is False
    text = report(plan)
    assert "DOES NOT FIT" in text
    assert largest.path in text
    assert "the compiler refused" in text


def test_a_batch_that_cannot_be_divided_is_refused():
    config = small_config(**{"data.batch_size": 12})
    with pytest.raises(ConfigError, match=r"data\.batch_size: got 12.*use 8 or 16"):
        make_plan(config, "cpu:8", find_largest=False)


def parse(monkeypatch, *arguments):
    argv = ["plan", *arguments]
    monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks for overrides
    values = flags.FlagValues()
    command.define_flags(values)
    return command.parse(argv, values)


def test_command_line(monkeypatch, tmp_path, capsys, plans):
    asked = []

    def make(config, topology, *, find_largest):
        asked.append((config, topology, find_largest))
        return plans[8]

    monkeypatch.setattr(planner, "make_plan", make)
    output = tmp_path / "plan.json"
    request = parse(
        monkeypatch,
        DUMMY,
        "--topology=cpu:2",
        f"--output={output}",
        "--config.sharding.fsdp=2",
        "--nolargest_batch",
    )
    command.main(request)
    assert asked == [(small_config(**{"sharding.fsdp": 2}), "cpu:2", False)]
    assert capsys.readouterr().out == report(plans[8]) + "\n"
    found = json.loads(output.read_text())
    assert found["topology"] == "cpu:2"
    assert found["memory"]["total"] == sum(
        size for name, size in found["memory"].items() if name != "total"
    )
    assert found["model_flops"] > 0
    assert found["roofline"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([DUMMY], "--topology: missing"),
        (["--topology=local"], "--config: missing"),
        ([DUMMY, "--topology=local", "--config.sharding.fdsp=2"], "sharding.fsdp"),
        ([DUMMY, "--topology=local", "--workdir=x"], "workdir"),
        ([DUMMY, "--topology=local", "--output=gs://b/x"], "^--output: got 'gs://b/x'; expected a"),
    ],
)
def test_mistakes(monkeypatch, arguments, message):
    with pytest.raises((ConfigError, StorageError, flags.Error), match=message):
        parse(monkeypatch, *arguments)


needs_libtpu = pytest.mark.skipif(not topology.has_libtpu(), reason="needs requirements-tpu.txt")


@pytest.fixture
def tpu(monkeypatch):
    for name, value in topology.LIBTPU.items():
        monkeypatch.setenv(name, value)


@needs_libtpu
@pytest.mark.usefixtures("tpu")
def test_a_topology_libtpu_does_not_know():
    with pytest.raises(ConfigError, match=r"--topology: got 'v5e:17x1'.*libtpu says"):
        topology.find_devices("v5e:17x1")


@needs_libtpu
@pytest.mark.usefixtures("tpu")
def test_slices_that_libtpu_describes_are_replicas():
    """Nothing is compiled; tests/test_training_sharding.py has the same with stand-ins."""
    described = topologies.get_topology_desc(
        platform="tpu", topology_name="v5e:4x4", num_slices=2
    ).devices
    grid = make_mesh(8, list(described)).devices
    assert [{chip.slice_index for chip in row} for row in grid] == [{0}, {0}, {1}, {1}]
    with pytest.raises(ConfigError, match="of the 16 devices of each of 2 slices"):
        make_mesh(32, list(described))


@needs_libtpu
@pytest.mark.usefixtures("tpu")
@pytest.mark.slow
def test_what_the_compiler_writes_is_what_it_returns():
    """The plan's child is ended before the machine code; the program is complete by then."""
    config = compiled.without_files(
        small_config(**SIZES, **{"sharding.fsdp": 4, "precision": "bf16"})
    )
    early = cross_compile.cross_compile_step(config, "v5e:2x2")
    mesh = make_mesh(4, topology.find_devices("v5e:2x2"))
    late = compiled.compile_step(compiled.abstract_step(config, mesh))
    assert planner.read_traffic(early, 4) == planner.read_traffic(late, 4)


@needs_libtpu
@pytest.mark.usefixtures("tpu")
@pytest.mark.parametrize(
    ("name", "fsdp", "state", "temporaries"),
    [("v5e:16x16", 128, 0.435, 3.38), ("v5p:4x4x8", 64, 0.532, 6.86)],
)
def test_xl_fits_a_pod(name, fsdp, state, temporaries):
    """GiB on each chip, at 4 images a v5e and 8 a v5p."""
    values = dit_dino.get_config()
    changes = {"precision": "bf16", "compute.scan_layers": True, "sharding.fsdp": fsdp}
    values.update_from_flattened_dict(changes)
    plan = make_plan(from_config_dict(values), name, find_largest=False)
    assert plan.fits
    assert not plan.replicated
    assert plan.memory.state / GIB == pytest.approx(state, rel=0.01)
    assert plan.memory.temporaries / GIB == pytest.approx(temporaries, rel=0.05)
    # Parameters are gathered once forward and once backward, in bfloat16, and little else is.
    assert 0.85 < plan.traffic.collectives["all-gather"] / (2 * 2 * 838.7e6) < 1.1
    assert plan.traffic.collectives["all-to-all"] < 1e6
    assert set(plan.traffic.collectives) >= {"all-reduce", "reduce-scatter"}  # of gradients
