"""Published models: a round trip bit for bit, from a directory and from a hub that is one."""

import ast
import dataclasses
import json
import re
import sys
import typing

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.small_ddt import awake_ddt
from support.small_run import small_config

import rae_dit
from rae_dit import publish as publishing
from rae_dit.config import Config, ConfigError, to_dict
from rae_dit.demo.model import Model, load_model
from rae_dit.demo.parts import Parts
from rae_dit.publish import publish, save_ddt
from rae_dit.sampling.generate import Generator
from rae_dit.setup import models
from rae_dit.setup.published import PATHS, published_config
from rae_dit.storage.files import write_json
from rae_dit.training.sharding import make_mesh
from rae_dit.weights.__main__ import main
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.mapping import parameters_of
from rae_dit.weights.publish import AUTOENCODER, CARD, DDT, MANIFEST, read_leaves

SETTINGS = {
    "compute.scan_layers": True,
    "ddt.conditioning": "tokens",
    "ddt.base_depth": 1,
    "ddt.depth": (2, 1),
    "ddt.use_pos_embed": False,
    "ddt.use_rope": True,
    "ddt.use_qknorm": True,
    "ddt.use_rmsnorm": True,
    "ddt.use_swiglu": True,
    "flow.prediction": "x",
    "decoder.pixels": "unit",
    "encoder.checkpoint": "/secret/encoder",
    "encoder.statistics": "/secret/statistics.npz",
    "decoder.checkpoint": "/secret/decoder",
    "sample.num_steps": 3,
    "sample.guidance": "internal",
    "sample.cfg_scale": 1.5,
}


def filled(make, config):
    """A network with a number of its own in every place; nothing is compiled."""
    graph, shapes = nnx.split(models.abstract(make, config))
    random = np.random.default_rng(5)
    values = jax.tree.map(
        lambda leaf: jnp.asarray(0.1 * random.standard_normal(leaf.shape), leaf.dtype), shapes
    )
    return nnx.merge(graph, values)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a stage-2 run of RAEv2's kind leaves, but for its checkpoint; and its models."""
    path = tmp_path_factory.mktemp("run")
    (path / "checkpoints/3").mkdir(parents=True)
    config = small_config(**SETTINGS)
    write_json(path / "config.json", to_dict(config))
    report = {"fid_guided": 1.2345, "num_samples": 7, "checkpoint_step": 3, "reference": "/secret"}
    write_json(path / "evaluation.json", report)
    rae = filled(models.make_full_rae, config)
    generator = Generator(filled(models.make_ddt, config), rae, make_mesh(1, jax.devices()[:1]))
    names = tuple(map(str, range(config.data.num_classes)))
    shift, precision = models.latent_shift(config), models.matmul_precision(config)
    return path, Model("RUN", generator, rae, config.sample, shift, precision, names)


@pytest.fixture(autouse=True, scope="module")
def _loaded(run):
    """Publishing loads these models in place of a checkpoint's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "load_model", lambda source, parts: run[1])
        yield


@pytest.fixture(scope="module")
def published(run, _loaded, tmp_path_factory):
    output = tmp_path_factory.mktemp("published") / "small"
    return publish(run[0], "me/small", output, license="mit", with_encoder=False, samples=False)


@pytest.fixture
def hub(monkeypatch, published):
    """A hub whose repository me/small is the published directory."""

    def download(repository, *, allow_patterns, **keywords):
        assert repository == "me/small"
        assert {MANIFEST, "config.json", DDT, AUTOENCODER} <= set(allow_patterns)
        return str(published)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)


def same(model, other):
    ours, theirs = parameters_of(model), parameters_of(other)
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(theirs[name]), err_msg=name)


def test_a_directory_and_a_hub_id_give_the_run_back_bit_for_bit(run, published, hub):
    for source in (published, str(published), "me/small"):
        ddt, rae = rae_dit.load_ddt(source), rae_dit.load_rae(source)
        assert ddt.architecture == run[1].generator.ddt.architecture
        same(ddt, run[1].generator.ddt)
        same(rae, run[1].rae)
        assert rae.pixels == "unit"
        assert rae.latent_scale is not None


def test_a_network_without_names_in_the_reference_is_kept_under_its_own(tmp_path):
    ddt = awake_ddt(use_rope=False, use_pos_embed=True, base_depth=1)
    assert save_ddt(tmp_path / "ddt.safetensors", ddt) == "own"
    read = read_leaves(tmp_path / "ddt.safetensors", parameters_of(ddt))
    for name, leaf in parameters_of(ddt).items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(read[name]))
    fewer = {name: leaf for name, leaf in parameters_of(ddt).items() if name != "label_table"}
    with pytest.raises(WeightsError, match=r"got other leaves than the config's \(\['label_table"):
        read_leaves(tmp_path / "ddt.safetensors", fewer)


def test_the_demo_page_opens_it_with_its_config(run, published):
    ours, theirs = load_model(str(published), Parts()), run[1]
    assert ours.sample == theirs.sample
    assert (ours.shift, ours.precision, ours.class_names) == (
        *(theirs.shift, theirs.precision, theirs.class_names),
    )
    assert ours.guidance_kinds == ["none", "cfg", "internal"]


def test_the_card_says_what_it_is(published):
    text = (published / CARD).read_text()
    head = text.split("---")[1]
    assert 'license: "mit"' in head
    assert "library_name: rae_dit" in head
    assert "| FID, guided | 1.234 |" in text
    assert "secret" not in text
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    (call,) = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "rae_dit.sample_latents"
    ]
    given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    shift = given.pop("shift")
    assert shift == pytest.approx(load_model(str(published), Parts()).shift)
    assert (given["steps"], given["guidance"], given["cfg_scale"]) == (3, "internal", 1.5)


NO_PATHS = {
    *("encoder.pretrained", "encoder.statistics"),  # the hub's, and the directory's own
    *("checkpoint.best_metric", "sample.labels", "sweep.metric"),
}


def texts() -> set[str]:
    """Fields of a config that hold any text."""
    sections = typing.get_type_hints(Config).items()
    hints = {name: typing.get_type_hints(s) for name, s in sections if dataclasses.is_dataclass(s)}
    return {f"{s}.{name}" for s, kinds in hints.items() for name in kinds if kinds[name] is str}


def test_no_path_of_this_machine_is_published():
    changes = {
        "encoder.checkpoint": "/home/me/encoder",
        "encoder.pretrained": "",
        "encoder.statistics": "/home/me/stat.npz",
        "decoder.checkpoint": "/home/me/rae",
        "sample.guidance": "autoguidance",
        "sample.guide_checkpoint": "/home/me/guide",
        "few_step.guidance": "autoguidance",
        "few_step.guide_checkpoint": "/home/me/guide",
        "few_step.teacher": "/home/me/teacher",
        "sample.class_names": "/home/me/names",
        "evaluate.reference_cache": "/home/me/references",
        "checkpoint.restore_from": "/home/me/old",
        "compute.compile_cache": "/home/me/.cache",
    }
    shared = to_dict(published_config(small_config(**changes), encoder=True))
    assert "/home" not in json.dumps(shared)
    assert shared["encoder"]["statistics"] == AUTOENCODER
    assert texts() - set(PATHS) == NO_PATHS  # a new field is one or the other


def broken(tmp_path, published, name, content):
    """A copy of the directory with one file changed; None removes it."""
    for path in published.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / name
    path.unlink() if content is None else path.write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (MANIFEST, b'{"format": 2}'),
        (MANIFEST, b'{"format": 1}'),
        (MANIFEST, b"{"),
        (AUTOENCODER, b"x" * 100),
        (AUTOENCODER, None),
        (DDT, None),
        ("config.json", b"{}"),
    ],
)
def test_a_damaged_directory_is_one_line(tmp_path, published, name, content):
    directory = broken(tmp_path, published, name, content)
    load = rae_dit.load_ddt if name == DDT else rae_dit.load_rae
    with pytest.raises((WeightsError, ConfigError)) as error:
        load(directory)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../a", "a/b/c", "a b", "", "a/../b", ".a", "a--b"])
def test_a_name_that_the_hub_refuses(run, tmp_path, name):
    with pytest.raises(ConfigError, match=r"^NAME: got"):
        publish(run[0], name, tmp_path / "x", license="", with_encoder=False, samples=False)


def test_random_weights_are_not_published(tmp_path):
    with pytest.raises(ConfigError, match=r"^decoder\.checkpoint: got ''; expected .* random"):
        publishing.check_trained(small_config(**{**SETTINGS, "decoder.checkpoint": ""}))


def test_an_encoder_of_this_disk_is_not_passed_over(tmp_path):
    config = small_config(**{**SETTINGS, "encoder.checkpoint": "", "encoder.pretrained": "/"})
    with pytest.raises(ConfigError, match=r"^encoder\.pretrained: got '/'; .*--with-encoder"):
        publishing.publishes_encoder(config, with_encoder=False)
    assert publishing.publishes_encoder(config, with_encoder=True)


def test_a_directory_of_other_things_is_left_alone(run, tmp_path):
    (tmp_path / "thesis.txt").write_text("all my work")
    with pytest.raises(WeightsError, match=r"which holds thesis\.txt; expected a new directory"):
        publish(run[0], "me/small", tmp_path, license="", with_encoder=False, samples=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["rae_dit.weights", "publish", *map(str, arguments)])
    main()


def test_nothing_is_uploaded_unless_asked(run, tmp_path, monkeypatch, capsys):
    asked = []

    class Hub:
        def create_repo(self, name, **keywords):
            asked.append((name, keywords["private"]))

        def upload_folder(self, *, repo_id, folder_path, allow_patterns, **keywords):
            asked.append(sorted(allow_patterns))
            return f"https://huggingface.co/{repo_id}/commit/1"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    place = ("--output", tmp_path / "a", "--no-samples")
    call(monkeypatch, run[0], "me/small", *place)
    assert asked == []
    assert "--upload sends these to https://huggingface.co/me/small" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        call(monkeypatch, run[0], "me/small", *place, "--upload")
    assert "--license" in capsys.readouterr().err
    assert asked == []
    (tmp_path / "a/private_notes.txt").touch()
    with pytest.raises(SystemExit):
        call(monkeypatch, run[0], "me/small", *place, "--upload", "--license=mit")
    (tmp_path / "a/private_notes.txt").unlink()
    call(monkeypatch, run[0], "me/small", *place, "--upload", "--license=mit", "--private")
    assert asked == [("me/small", True), ["README.md", AUTOENCODER, "config.json", DDT, MANIFEST]]
    assert capsys.readouterr().out.strip().endswith("/commit/1")
