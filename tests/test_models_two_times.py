"""A DiT^DH with two times: MF-RAE's golden forward pass and files, and its start as the teacher."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.golden_files import GOLDEN, arrays, channels_last, relative_error
from support.small_ddt import T, X, Y, awake_ddt, make_ddt

import rae_dit
from rae_dit.architecture import Compute, DDTArchitecture
from rae_dit.config import ConfigError, from_config_dict
from rae_dit.models.ddt import DDT
from rae_dit.weights.official import export_ddt
from rae_dit.weights.tensor_file import open_tensors, save_tensors

NAMES = ("fewstep_default", "fewstep_qknorm")


@pytest.mark.parametrize("name", NAMES)
def test_average_velocity_agrees_with_the_reference(name):
    golden = arrays(f"fewstep/{name}")
    student = rae_dit.load_ddt(GOLDEN / "fewstep" / f"{name}.pt")
    teacher = rae_dit.load_ddt(GOLDEN / "fewstep" / f"{name}_teacher.pt")
    assert student.architecture.interval_embedding
    assert not teacher.architecture.interval_embedding
    x, t, y = jnp.asarray(channels_last(golden["x"])), golden["t"], golden["y"]
    average = jax.jit(student.__call__)
    found = {
        "u": average(x, t, y, golden["r"]),
        "u_r_none": average(x, t, y, np.zeros_like(t)),  # the reference's None means 0
        "u_r_equals_t": average(x, t, y, t),
        "v_teacher": teacher(x, t, y),
    }
    for key, value in found.items():
        assert relative_error(value, channels_last(golden[key])) < 1e-5, key
    np.testing.assert_array_equal(jax.jit(student.velocity)(x, t, y), found["u_r_equals_t"])


def test_file_is_written_as_it_was_read(tmp_path):
    settings = json.loads((GOLDEN / "fewstep/fewstep_default.json").read_text())
    source = GOLDEN / "fewstep/fewstep_default.pt"
    written = export_ddt(rae_dit.load_ddt(source))
    tensors = open_tensors(source)
    assert {key: list(written[key].shape) for key in settings["added_keys"]} == settings[
        "added_keys"
    ]
    for key in tensors:
        np.testing.assert_allclose(written[key], tensors[key], atol=1e-6, err_msg=key)
    save_tensors(tmp_path / "again.safetensors", written)
    again = rae_dit.load_ddt(tmp_path / "again.safetensors")
    assert again.architecture.interval_embedding


def test_the_published_size_has_five_more_tensors_and_1_92_million_more_parameters():
    def shapes(two_times):
        architecture = DDTArchitecture(
            input_size=16,
            in_channels=768,
            num_classes=1000,
            hidden_size=(1152, 2048),
            depth=(28, 2),
            num_heads=(16, 16),
            interval_embedding=two_times,
        )
        made = nnx.eval_shape(lambda: DDT(architecture, Compute(), rngs=nnx.Rngs(0)))
        return [leaf.shape for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(made)))]

    one, two = shapes(False), shapes(True)
    more = sum(map(np.prod, two)) - sum(map(np.prod, one))
    assert len(two) - len(one) == 5
    assert more == 256 + 1152 * 512 + 1152 + 1152**2 + 1152


def test_a_new_student_is_its_teacher_for_every_interval():
    """Bit for bit: all but the embedding is initialized as without it, and that adds zero."""
    teacher, student = make_ddt(), make_ddt(interval_embedding=True)
    parts = nnx.to_pure_dict(nnx.state(student))
    added = parts.pop("interval_embedding")
    jax.tree.map(np.testing.assert_array_equal, parts, nnx.to_pure_dict(nnx.state(teacher)))
    assert np.std(added["frequency"]) == pytest.approx(1, abs=0.15)
    assert not np.array_equal(added["frequency"], parts["time_embedding"]["frequency"])
    teacher, student = awake_ddt(), make_ddt(interval_embedding=True)
    awake = nnx.to_pure_dict(nnx.state(teacher)) | {"interval_embedding": added}
    student = nnx.merge(nnx.graphdef(student), awake)
    expected = teacher(X, T, Y)
    for r in (0 * T, T / 3, T):
        np.testing.assert_array_equal(student(X, T, Y, r), expected)


def test_a_missing_time_and_one_too_many_are_refused():
    with pytest.raises(ValueError, match=r"^r: got None; expected times"):
        make_ddt(interval_embedding=True)(X, T, Y)
    with pytest.raises(ValueError, match=r"^r: got a time; expected None"):
        make_ddt()(X, T, Y, T)


@pytest.mark.parametrize(
    "changes", [{"conditioning": "tokens"}, {"base_depth": 1}, {"prediction": "x"}]
)
def test_switches_made_for_one_time_are_refused(changes):
    with pytest.raises(ValueError, match=r"^interval_embedding: got True; expected False with"):
        make_ddt(interval_embedding=True, **changes)
    from configs import dit_digits

    config = dit_digits.get_config()
    config.ddt.interval_embedding = True
    for name, value in changes.items():
        section = config.flow if name == "prediction" else config.ddt
        section[name] = value
    with pytest.raises(ConfigError, match=r"^ddt.interval_embedding: got True; expected False"):
        from_config_dict(config)
