"""Evaluation end to end on models with random weights: figures, files, refusals."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from support.small_inception import Projections
from support.small_run import small_config

from rae_dit.config import ConfigError
from rae_dit.data.transforms import to_uint8
from rae_dit.evaluation import pipeline, references
from rae_dit.evaluation.digits import DigitClassifier, pixel_features
from rae_dit.evaluation.feature_extractors import InceptionExtractor
from rae_dit.evaluation.metric_state import MetricState
from rae_dit.evaluation.metrics.frechet_distance import Moments, frechet_distance
from rae_dit.evaluation.metrics.precision_recall import precision_recall
from rae_dit.evaluation.stored import open_stored
from rae_dit.modes import evaluate as mode
from rae_dit.modes.evaluate import evaluate
from rae_dit.provenance import file_hash
from rae_dit.sampling.generate import Generator, generate
from rae_dit.sampling.npz import write_npz
from rae_dit.setup import data, models
from rae_dit.setup import evaluation as setup
from rae_dit.setup import references as setup_references
from rae_dit.setup.evaluation import make_feature_extractor, score
from rae_dit.setup.sampling import generation_settings
from rae_dit.storage.errors import StorageError
from rae_dit.training.sharding import make_mesh

INCEPTION = {
    "evaluate.judge": "inception",
    "evaluate.metrics": ("fid", "sfid", "inception_score", "precision", "recall"),
    "evaluate.num_samples": 11,
    "evaluate.batch_size": 4,
}


@pytest.fixture(scope="module")
def generator():
    config = small_config()
    rae = models.make_rae(config, nnx.Rngs(0), decoder=True, statistics=False)
    ddt = models.make_ddt(config, nnx.Rngs(1))
    graph, state = nnx.split(ddt)  # as initialised, a DiT stands still whatever the label
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(state))))
    moved = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), state)
    return Generator(nnx.merge(graph, moved), rae, make_mesh(1, jax.devices()[:2]))


@pytest.fixture
def inception(monkeypatch, tmp_path):
    """The config of an extractor whose network is small, and whose file of weights is any file."""
    monkeypatch.setattr(setup, "read_inception", lambda path: Projections())
    monkeypatch.setattr(references, "WIDTH", {"mu": 16, "mu_s": 12})
    (tmp_path / "weights.pth").write_bytes(b"any")
    return INCEPTION | {"evaluate.inception": str(tmp_path / "weights.pth")}


def images_of(generator, config, count=11, scale=1.0):
    labels = [i % 4 for i in range(count)]
    made = generate(generator, generation_settings(config), labels, cfg_scale=scale)
    return np.concatenate(list(made))


def projected(images):
    return InceptionExtractor.of(Projections(), batch_size=64, identity="")(images)


def test_digits_score_is_that_of_all_images_at_once(generator, tmp_path):
    config = small_config(**{"evaluate.num_samples": 11, "evaluate.batch_size": 3})
    values = score(generator, make_feature_extractor(config), config, tmp_path)
    images, source = images_of(generator, config), data.open_source(config, "train")
    real = np.stack([source[i]["image"] for i in range(len(source))]) / np.float32(255)
    labels = np.array([source[i]["label"] for i in range(len(source))])
    classifier = DigitClassifier.fit(real, labels)
    assert values == pytest.approx(
        {
            "class_accuracy": classifier.accuracy(images, np.arange(11) % 4),
            "frechet": frechet_distance(
                Moments.of(pixel_features(real)), Moments.of(pixel_features(images))
            ),
        },
        rel=1e-9,
    )


def test_inception_score_and_distances_against_a_reference_of_statistics(
    generator, inception, tmp_path
):
    real = np.random.default_rng(1).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    found = projected(real / np.float32(255))
    pool, spatial = Moments.of(found.pool + 1.0), Moments.of(found.spatial * 2.0)
    statistics = {"mu": pool.mean, "sigma": pool.covariance}
    statistics |= {"mu_s": spatial.mean, "sigma_s": spatial.covariance}
    np.savez(tmp_path / "reference.npz", arr_0=real, **statistics)
    config = small_config(**inception, **{"evaluate.reference": str(tmp_path / "reference.npz")})
    values = score(generator, make_feature_extractor(config), config, tmp_path)
    generated = projected(to_uint8(images_of(generator, config)) / np.float32(255))
    assert tuple(values) == config.evaluate.metrics
    fid = frechet_distance(pool, Moments.of(generated.pool))
    assert values["fid"] == pytest.approx(fid, rel=1e-6)
    sfid = frechet_distance(spatial, Moments.of(generated.spatial))
    assert values["sfid"] == pytest.approx(sfid, rel=1e-6)
    pair = precision_recall(found.pool, generated.pool)
    assert (values["precision"], values["recall"]) == pair
    assert 1 < values["inception_score"] < 11


def test_a_reference_from_the_source_is_computed_once(generator, inception, tmp_path, monkeypatch):
    config = small_config(**inception)
    first = score(generator, make_feature_extractor(config), config, tmp_path)
    (kept,) = (tmp_path / "references").iterdir()
    monkeypatch.setattr(setup_references, "source_batches", None)
    assert score(generator, make_feature_extractor(config), config, tmp_path) == first
    (tmp_path / "weights.pth").write_bytes(b"others")  # another network: another reference
    with pytest.raises(TypeError):
        score(generator, make_feature_extractor(config), config, tmp_path)
    assert list((tmp_path / "references").iterdir()) == [kept]


@pytest.mark.parametrize("harm", ["cut short", "without pool features"])
def test_a_kept_reference_that_cannot_be_used_is_computed_again(
    generator, inception, tmp_path, caplog, harm
):
    config = small_config(**inception)
    first = score(generator, make_feature_extractor(config), config, tmp_path)
    (kept,) = (tmp_path / "references").iterdir()
    content = kept.read_bytes()
    if harm == "cut short":
        kept.write_bytes(content[: len(content) // 2])
    else:
        with np.load(kept) as arrays:
            np.savez(kept, **{name: arrays[name] for name in arrays if "pool" not in name})
    with caplog.at_level("WARNING", "rae_dit"):
        assert score(generator, make_feature_extractor(config), config, tmp_path) == first
    assert f"{kept}: cannot be used (" in caplog.text
    assert "; it is computed again" in caplog.text
    assert kept.read_bytes() == content


def test_a_bucket_that_cannot_be_reached_only_costs_the_kept_reference(
    tmp_path, monkeypatch, caplog
):
    def fail(*arguments):
        raise StorageError("UNAVAILABLE")

    monkeypatch.setattr(Path, "is_file", fail)
    monkeypatch.setattr(pipeline, "write_bytes", fail)
    made = MetricState.of([])
    assert pipeline.cached_reference(tmp_path, "identity", [], lambda: made) is made
    assert "cannot be used (UNAVAILABLE)" in caplog.text
    assert "cannot be written (UNAVAILABLE)" in caplog.text


def test_stored_images_of_a_bucket_are_read_from_each_host_s_own_copy(tmp_path, monkeypatch):
    def save(folder):
        folder.mkdir()
        for name in ("a.png", "b.png"):
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / name)
        return folder

    for there, here in (
        (tmp_path / "there", save(tmp_path / "here")),
        (tmp_path / "there" / "a.png", tmp_path / "here" / "a.png"),
    ):
        if there.suffix == "":
            save(there)
        monkeypatch.setattr(setup, "share", lambda *_, path=there: open_stored(path))
        monkeypatch.setattr(setup, "local_copy", lambda _, path=here: path)
        compared = []
        monkeypatch.setattr(setup, "require_same", lambda find, to=compared: to.append(find()))
        found = setup.open_samples(small_config(**{"evaluate.samples": "gs://bucket/x"}))
        assert (found.path, *found.files) == (here, *([here / "a.png", here / "b.png"]
                                              if here.is_dir() else [here]))  # fmt: skip
        (named,) = compared
        found.files[0].write_bytes(found.files[0].read_bytes() + b"!")
        assert {*named.values()} != {found.fingerprint()}


def test_stored_images_give_the_figures_of_generated_ones(
    generator, inception, tmp_path, monkeypatch
):
    """To the last bit, in whatever batches: the extractor sees what a file would hold."""
    config = small_config(**inception, **{"sample.cfg_scale": 2.0, "sample.batch_size": 6})
    monkeypatch.setattr(mode, "load_generator", lambda config, workdir, step: generator)
    evaluate(config, tmp_path)
    online = json.loads((tmp_path / "evaluation.json").read_text())
    images = to_uint8(images_of(generator, config, scale=2.0))
    write_npz(tmp_path / "samples.npz", iter(images), np.arange(11) % 4)
    stored = small_config(**inception, **{"evaluate.samples": str(tmp_path / "samples.npz")})
    evaluate(stored, tmp_path)
    offline = json.loads((tmp_path / "evaluation.json").read_text())
    for metric in config.evaluate.metrics:
        assert online[f"{metric}_guided"] == offline[metric]
    assert offline["samples"]["sha256"] == file_hash(tmp_path / "samples.npz")
    assert offline["num_samples"] == 11


def test_report_says_what_the_figures_depend_on(generator, tmp_path, monkeypatch):
    """And the step that was loaded, though training saves another one meanwhile."""
    loaded = []

    def load(config, workdir, step):
        loaded.append(step)
        (tmp_path / "checkpoints" / "16").mkdir()
        return generator

    monkeypatch.setattr(mode, "load_generator", load)
    (tmp_path / "checkpoints" / "12").mkdir(parents=True)
    (tmp_path / "checkpoints" / "8").mkdir()
    config = small_config(**{"sample.cfg_scale": 3.0, "evaluate.unguided": True})
    evaluate(config, tmp_path)
    report = json.loads((tmp_path / "evaluation.json").read_text())
    for kind in ("unguided", "guided", "real"):
        assert 0 <= report[f"class_accuracy_{kind}"] <= 1
        assert report[f"frechet_{kind}"] >= 0
    assert report["frechet_guided"] != report["frechet_unguided"]
    assert loaded == [12]
    wanted = {
        "checkpoint": str(tmp_path),
        "checkpoint_step": 12,
        "num_samples": 8,
        "num_steps": 4,
        "grid": "official",
        "method": "euler",
        "cfg_scale_guided": 3.0,
        "label_mode": "equal",
        "seed": 0,
        "precision": "fp32",
        "reference": "synthetic",
        "reference_images": 1024,
        "judge": "digits",
    }
    assert wanted.items() <= report.items()
    assert (tmp_path / "samples_guided.png").is_file()
    assert (tmp_path / "samples_unguided.png").is_file()


def test_only_the_guided_images_unless_asked():
    guided = small_config(**{"sample.cfg_scale": 3.0})
    assert mode.guidances(guided) == {"guided": guided}
    assert mode.guidances(small_config()) == {"unguided": small_config()}


@pytest.mark.parametrize("cfg_scale", [1.0, 2.0])
def test_unguided_images_have_no_internal_guidance_either(cfg_scale):
    second_head = {"ddt.base_depth": 1, "sample.cfg_scale": cfg_scale}
    guided = small_config(
        **second_head, **{"sample.internal_scale": 1.8, "evaluate.unguided": True}
    )
    found = mode.guidances(guided)
    assert list(found) == ["unguided", "guided"]
    assert found["guided"] == guided
    plain = found["unguided"].sample
    assert (plain.cfg_scale, plain.internal_scale, plain.internal_null_scale) == (1.0, 1.0, None)


def test_an_evaluation_generates_as_many_at_once_as_it_says():
    """The pictures of a run, and --mode=sample, keep `sample.batch_size`."""
    same, other = small_config(), small_config(**{"evaluate.sample_batch_size": 7})
    assert (
        generation_settings(setup.during_training(same)).batch_size == same.sample.batch_size == 4
    )
    assert generation_settings(setup.during_training(other)).batch_size == 7
    assert generation_settings(setup.with_batch_size(other)).batch_size == 7
    assert generation_settings(other).batch_size == 4


def test_groups_hold_every_image_once_and_in_order():
    shares = [(np.arange(a, b), np.arange(a, b) * 10) for a, b in ((0, 1), (1, 8), (8, 8), (8, 11))]
    groups = list(pipeline.regrouped(iter(shares), 3))
    assert [len(numbers) for numbers, _ in groups] == [3, 3, 3, 2]
    np.testing.assert_array_equal(np.concatenate([n for n, _ in groups]), np.arange(11))
    np.testing.assert_array_equal(np.concatenate([x for _, x in groups]), 10 * np.arange(11))


def save(folder, **arrays):
    path = folder / "file.npz"
    np.savez(path, **arrays)
    return str(path)


def images(count, side=8):
    return np.zeros((count, side, side, 3), np.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda d: {"evaluate.inception": ""}, "evaluate.inception: got ''; expected the file pt_"),
        (lambda d: {"evaluate.inception": f"{d}/no.pth"}, "evaluate.inception: .*no.pth'; exp"),
        (lambda d: {"evaluate.reference": f"{d}/no.npz"}, "evaluate.reference: .* does not exist"),
        (
            lambda d: {"evaluate.reference": save(d, mean=np.zeros(3))},
            r"evaluate.reference: .*\['mean'\]; expected mu and sigma or images in arr_0 for 'fid'",
        ),
        (
            lambda d: {"evaluate.reference": save(d, mu=np.zeros(64), sigma=np.zeros((64, 64)))},
            r"evaluate.reference: .* mu \(64,\) and sigma \(64, 64\); expected \(16,\)",
        ),
        (
            lambda d: {"evaluate.reference": save(d, activations=np.zeros((5, 64)))},
            r"evaluate.reference: .* activations \(5, 64\); expected \[n, 16\]",
        ),
        (lambda d: {"evaluate.samples": f"{d}/none"}, "evaluate.samples: .*none', which does not"),
        (lambda d: {"evaluate.samples": save(d, arr_0=images(0))}, "evaluate.samples: .*n >= 1"),
        (
            lambda d: {"evaluate.samples": save(d, arr_0=images(3))},
            "evaluate.samples: got 3 images; expected at least 4 for fid, sfid",
        ),
        (
            lambda d: {"data.source": "latents", "data.path": "x", "evaluate.samples": ""},
            "evaluate.reference: got ''; expected a file of statistics: data.source 'latents' has",
        ),
        (lambda d: {"evaluate.num_samples": 1}, "evaluate.num_samples: got 1 images; expected at"),
        (
            lambda d: {"data.source": "folder", "data.path": "x", "evaluate.judge": "digits",
                       "evaluate.metrics": ("frechet",)},
            "evaluate.judge: got 'digits'; expected 'inception' for data.source 'folder'",
        ),
        (
            lambda d: {"evaluate.judge": "digits", "evaluate.metrics": ("frechet",),
                       "data.image_size": 12, "decoder.patch_size": 3},
            "data.image_size: got 12; expected a multiple of 8 for evaluate.judge 'digits'",
        ),
        (
            lambda d: {"evaluate.judge": "digits", "evaluate.metrics": ("class_accuracy",),
                       "evaluate.samples": save(d, arr_0=images(5))},
            "evaluate.samples: got .* without labels; expected the directory of --mode=sample",
        ),
        (
            lambda d: {"evaluate.judge": "digits", "evaluate.metrics": ("frechet",),
                       "evaluate.samples": save(d, arr_0=images(5, 12))},
            "evaluate.samples: got images of 12 x 12 pixels; expected squares .* multiple of 8",
        ),
        (
            lambda d: {"evaluate.samples": "", "evaluate.reference_cache": __file__},
            "evaluate.reference_cache: got .*; expected a writable directory; .* is not writable",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_before_anything_is_computed(inception, tmp_path, changes, message):
    config = small_config(**(inception | changes(tmp_path)))
    with pytest.raises(ConfigError, match=message) as caught:
        evaluate(config, tmp_path / "workdir")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "workdir").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluate.metrics": ("fid",)}, "evaluate.metrics: .* of judge 'digits': class_accuracy"),
        ({"evaluate.metrics": ()}, "evaluate.metrics: got"),
        ({"evaluate.metrics": ("frechet", "frechet")}, "evaluate.metrics: got"),
        ({"evaluate.metrics": ("fit",)}, r"evaluate.metrics\[0\]: got 'fit'; .*did you mean 'fid'"),
        ({"evaluate.reference": "x.npz"}, "evaluate.reference: got 'x.npz'; expected '' because"),
        (
            {"objective": "reconstruction", "metrics.evaluate_every": 2},
            "metrics.evaluate_every: got 2; expected None because objective 'reconstruction'",
        ),
    ],
)
def test_bad_settings_are_refused_with_the_config(changes, message):
    with pytest.raises(ConfigError, match=message):
        small_config(**changes)


def test_config_sections_go_through_files():
    config = small_config(**INCEPTION)
    assert dataclasses.asdict(config)["evaluate"]["metrics"] == INCEPTION["evaluate.metrics"]
