"""--mode=latents and data.source=latents: the records and the losses of training on pixels."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.image_files import images_of
from support.memory_files import Memory
from support.run_processes import start_pair, wait
from support.small_run import small_config

from rae_dit.config import ConfigError
from rae_dit.data.files import Listing
from rae_dit.data.latents import Manifest, checksum_here, open_latents
from rae_dit.data.pipeline import ordered_batches, train_batches
from rae_dit.data.sources import synthetic
from rae_dit.models.latent_storage import pack, unpack
from rae_dit.modes import latents as mode
from rae_dit.modes.latents import latents
from rae_dit.sampling import codec
from rae_dit.setup import data, weights
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import open_run
from rae_dit.training.sharding import make_mesh
from rae_dit.weights.statistics import write_statistics

IMAGES = 44  # two shards of sixteen and one of twelve
SOURCE = synthetic(8, 4, IMAGES, 0)
SHARDS = [f"latents-0000{n}-of-00003.array_record" for n in range(3)]


def config_of(directory: Path, **changes):
    """A small run with statistics, which `directory` holds."""
    file = directory / "statistics.npz"
    if not file.exists():
        mean = np.linspace(-1, 1, 256).reshape(4, 4, 16)
        write_statistics(file, mean=mean, variance=1 + mean**2, count=1, provenance="{}")
    settings = {"encoder.statistics": str(file), "latents.images_per_shard": 16, "data.flip": True}
    return small_config(**settings | {"latents.storage": "fp32"} | changes)


def open_synthetic(config, split):
    return SOURCE if split == "train" else None


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple:
    """The config and the directory of latents that a whole job has written."""
    directory = tmp_path_factory.mktemp("latents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "open_source", open_synthetic)
        latents(config_of(directory), directory / "run")
    return config_of(directory), directory / "run" / "latents" / "train"


def encoded(config, images: np.ndarray) -> np.ndarray:
    rae = weights.place_rae(config, make_mesh(1, jax.devices()[:1]), decoder=False)
    return np.asarray(codec.encode(*rae, jnp.asarray(images)))


def on_cached(config, directory: Path):
    """The config of a run on cached latents."""
    section = dataclasses.replace(config.data, source="latents", path=str(directory))
    return dataclasses.replace(config, data=section)


def test_records_are_the_latents_of_images_and_of_mirror_images(made):
    config, directory = made
    assert sorted(path.name for path in directory.iterdir()) == [*SHARDS, "latents.json"]
    stored = open_latents(str(directory), 4)
    images = np.stack([SOURCE[i]["image"] for i in range(IMAGES)])
    for mirrored, expected in ((False, images), (True, images[:, :, ::-1])):
        found = [stored.read(i, mirrored=mirrored) for i in range(IMAGES)]
        assert [int(each["label"]) for each in found] == [i % 4 for i in range(IMAGES)]
        values = np.stack([each["latent"] for each in found])
        np.testing.assert_allclose(values, encoded(config, expected), atol=2e-5)


def test_a_step_has_the_inputs_that_it_has_on_pixels(made):
    """Times, noise and dropped labels to the bit, latents to rounding; so equal losses."""
    config, directory = made
    stored, cached = open_latents(str(directory), 4), on_cached(config, directory)
    settings = {"batch_size": 8, "seed": 3, "num_workers": 0, "flip": True}
    mesh = make_mesh(1, jax.devices()[:1])
    frozen = make_task(config).load_frozen(mesh)
    assert make_task(cached).load_frozen(mesh) == {}
    on_latents = jax.jit(make_task(cached).objective.sample_inputs)
    on_pixels = jax.jit(make_task(config).objective.sample_inputs)
    pixels = train_batches(SOURCE, start_step=4, **settings)
    tokens = train_batches(stored, start_step=4, **settings)
    with pixels, tokens:
        for step in range(3):  # the second straddles two epochs
            key, image, latent = jax.random.key(step), next(pixels), next(tokens)
            latent = {name: jnp.asarray(value) for name, value in latent.items()}
            inputs = on_latents({}, latent, key)
            image |= {"image": image["image"] / np.float32(255)}
            expected = on_pixels(frozen, image, key)
            np.testing.assert_allclose(inputs.pop("latent"), expected.pop("latent"), atol=2e-5)
            assert inputs.keys() == expected.keys() == {"t", "noise", "label"}
            for name in inputs:
                np.testing.assert_array_equal(inputs[name], expected[name])


def test_a_stream_continues_at_any_step_on_any_rows(made):
    stored = open_latents(str(made[1]), 4)
    settings = {"batch_size": 8, "seed": 3, "num_workers": 0, "flip": True}
    with train_batches(stored, start_step=0, **settings) as whole:
        batches = [next(whole) for _ in range(4)]
    with train_batches(stored, start_step=3, rows=[1, 6], **settings) as part:
        for name, value in next(part).items():
            np.testing.assert_array_equal(value, batches[3][name][[1, 6]])
    with ordered_batches(stored, batch_size=40, limit=None) as ordered:
        first, last = ordered
    np.testing.assert_array_equal(first["latent"][7], stored.read(7)["latent"])
    np.testing.assert_array_equal(last["weight"], [1] * 4 + [0] * 36)
    assert not last["latent"][4:].any()


@pytest.mark.parametrize("storage", ["bf16", "fp8"])
def test_fewer_bits_are_read_back_to_their_rounding(storage):
    latent = np.random.default_rng(0).normal(size=(3, 4, 4, 16)).astype(np.float32)
    latent *= np.logspace(-4, 4, 16, dtype=np.float32)
    latent[0, :, :, 0] = 0
    stored = pack(jnp.asarray(latent), storage)
    error = np.abs(np.asarray(unpack(stored)) - latent)
    if storage == "bf16":
        assert (error <= np.abs(latent) / 2**8).all()
    else:
        least = np.abs(latent).max((1, 2), keepdims=True) / 448 / 2**10
        assert (error <= 1.0001 * np.maximum(np.abs(latent) / 2**4, least)).all()
        assert stored["latent"].dtype.itemsize == 1
        np.testing.assert_allclose(error.max(), np.abs(latent).max() / 30, rtol=0.5)


def test_float8_records_keep_their_scales(made, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "open_source", open_synthetic)
    config, directory = made
    small = dataclasses.replace(config.latents, storage="fp8", output=str(tmp_path))
    latents(dataclasses.replace(config, latents=small), tmp_path)
    stored, exact = open_latents(str(tmp_path / "train"), 4), open_latents(str(directory), 4)
    for number in (0, 43):
        found, wanted = stored.read(number)["latent"], exact.read(number)["latent"]
        values = found.astype(np.float32) * stored.read(number)["scale"]
        least = np.abs(wanted).max((0, 1)) / 448 / 2**9
        assert (np.abs(values - wanted) <= np.maximum(np.abs(wanted) / 15, least)).all()


def test_a_damaged_image_has_the_latent_of_what_training_shows_in_its_place(monkeypatch, tmp_path):
    files = Memory(bad=(4, 7))
    monkeypatch.setattr(files, "listing", Listing(1), raising=False)
    source = images_of(files)
    monkeypatch.setattr(data, "open_source", lambda config, split: source)

    def encode(graph, parameters, image, storage, mirrored):
        pixels = jnp.asarray(image, jnp.float32).reshape(-1, 4, 4, 48)[..., :16]
        return [{"latent": pixels, "finite": jnp.ones(len(pixels), bool)}]

    monkeypatch.setattr(mode, "encode", encode)
    changes = {"data.image_size": 16, "decoder.patch_size": 4, "data.flip": False}
    config = small_config(**changes, **{"latents.storage": "fp32", "data.num_classes": 3})
    mode.latents(config, tmp_path)
    stored = open_latents(str(tmp_path / "latents" / "train"), 3)
    for number in (3, 4, 7):
        shown = source[number]
        assert stored.read(number)["label"] == shown["label"]
        pixels = shown["image"].reshape(4, 4, 48)[..., :16]
        np.testing.assert_array_equal(stored.read(number)["latent"], pixels)
    assert source[4]["replaced"]


def test_a_killed_job_goes_on_with_the_missing_shards(made, monkeypatch, tmp_path, caplog):
    config, whole = made
    monkeypatch.setattr(data, "open_source", open_synthetic)
    written, write = [], mode.write_shard

    def write_and_die(path, records):
        if len(written) == 1:
            (path.parent / f".{path.name}.123").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, records)

    with monkeypatch.context() as patch:
        patch.setattr(mode, "write_shard", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            latents(config, tmp_path)
    directory = tmp_path / "latents" / "train"
    assert written == SHARDS[:1]
    with pytest.raises(ConfigError, match=r"^data\.path: got .* not finished \(2 of 3 shards"):
        data.open_examples(on_cached(config, directory), "train")
    before = (directory / SHARDS[0]).stat().st_mtime_ns
    with caplog.at_level("INFO", "rae_dit"):
        latents(config, tmp_path)
    assert "2 of 3 shards are to be written" in caplog.text
    assert (directory / SHARDS[0]).stat().st_mtime_ns == before
    for path in directory.iterdir():
        assert path.read_bytes() == (whole / path.name).read_bytes()
    monkeypatch.setattr(mode, "encode", None)  # nothing is left to do
    latents(config, tmp_path)
    section = dataclasses.replace(config.latents, storage="bf16")
    with pytest.raises(ConfigError, match=r"storage: got 'fp32'; expected 'bf16'") as caught:
        latents(dataclasses.replace(config, latents=section), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("", {"seed": 1}, r"data\.path: .* other latents: encoder_checksum: got \d+; expected \d+"),
        ("encoder", {"image_mean": (0.5, 0.5, 0.5)}, r"encoder\.image_mean: got \[0\.485, "),
        ("encoder", {"statistics": ""}, r"statistics_checksum: got \d+; expected None"),
    ],
)
def test_other_latents_are_refused_before_anything_is_compiled(made, section, changes, message):
    config = on_cached(*made)
    if section:
        changes = {section: dataclasses.replace(getattr(config, section), **changes)}
    with pytest.raises(ConfigError, match=message) as caught:
        open_run(dataclasses.replace(config, **changes), make_mesh(1))
    assert "\n" not in str(caught.value)


def test_mirror_images_and_shards_that_are_not_there(made, tmp_path):
    config, directory = made
    manifest = Manifest.read(directory)
    dataclasses.replace(manifest, mirrored=False).write(tmp_path)
    for name in SHARDS:
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    with pytest.raises(ConfigError, match=r"^data\.flip: got True; expected False"):
        open_run(on_cached(config, tmp_path), make_mesh(1))
    manifest.write(tmp_path)
    content = bytearray((directory / SHARDS[1]).read_bytes())
    content[20_000:20_100] = bytes(100)
    (tmp_path / SHARDS[1]).write_bytes(content)
    stored = open_latents(str(tmp_path), 4)
    with pytest.raises(ValueError, match=rf"{SHARDS[1]}: the latent of image \d+ is damaged"):
        [stored.read(number) for number in range(IMAGES)]
    (tmp_path / SHARDS[1]).unlink()
    with pytest.raises(ConfigError, match=r"not finished \(1 of 3 shards are missing\)"):
        data.open_examples(on_cached(config, tmp_path), "train")
    with pytest.raises(ConfigError, match=r"without latents\.json; expected a directory that"):
        data.open_examples(on_cached(config, tmp_path / "none"), "train")


def test_hosts_are_compared_by_their_latents(made, tmp_path, monkeypatch):
    config, directory = made
    compared = []
    monkeypatch.setattr(data, "require_same", lambda find: compared.append(find()))
    data.open_examples(on_cached(config, directory), "train")
    checksum = checksum_here(str(directory))
    assert compared == [{f"data.path: checksum of {directory}/latents.json": checksum}]
    manifest = Manifest.read(directory)
    shutil.copytree(directory, tmp_path / "here")
    here = str(tmp_path / "here")
    assert checksum_here(here) == checksum
    (tmp_path / "here" / SHARDS[1]).unlink()
    assert checksum_here(here) != checksum
    (tmp_path / "here" / SHARDS[1]).write_bytes(b"")
    dataclasses.replace(manifest, provenance={}).write(tmp_path / "here")
    assert checksum_here(here) != checksum
    assert "without latents.json" in checksum_here(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "reconstruction"}, r"^data\.source: got 'latents'; expected a source of im"),
        ({"data.crop": "random"}, r"^data\.crop: got 'random'; expected 'adm_center', of which"),
    ],
)
def test_what_latents_are_not_for(changes, message):
    with pytest.raises(ConfigError, match=message):
        small_config(**{"data.source": "latents", "data.path": "x"} | changes)


def test_latents_are_no_images(made, tmp_path):
    with pytest.raises(ConfigError, match=r"^data\.source: got 'latents'; expected a source of im"):
        latents(on_cached(*made), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_config_of_before_is_read_as_one_without_a_cache(tmp_path):
    from rae_dit.config import to_dict
    from rae_dit.workdir import parse_config

    values = json.loads(json.dumps(to_dict(small_config())))
    del values["latents"]
    read = parse_config(tmp_path / "config.json", json.dumps(values))
    assert read == small_config()


@pytest.mark.slow
def test_two_processes_write_the_shards_of_one(tmp_path):
    config = small_config(**{"data.batch_size": 128, "latents.images_per_shard": 200})
    latents(config, tmp_path / "alone")
    changes = {"data.batch_size": 128, "latents.images_per_shard": 200}
    changes |= {"encoder.depth": 2, "decoder.depth": 2}
    wait(tmp_path / "pair", start_pair(tmp_path / "pair", changes, mode="latents"))
    for split in ("train", "validation"):
        one, two = (
            open_latents(str(tmp_path / name / "latents" / split), 4) for name in ("alone", "pair")
        )
        assert one.manifest == two.manifest
        for number in range(0, len(one), 37):
            assert one.read(number)["label"] == two.read(number)["label"]
            np.testing.assert_allclose(
                *(each.read(number)["latent"].astype(np.float32) for each in (one, two)), atol=0.03
            )
