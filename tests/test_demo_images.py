"""Images of the demo page: those of --mode=sample; the way from noise; uploads; zip files."""

import dataclasses
import io
import sys
import zipfile
import zlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support.demo_model import small_model
from support.sampling_run import GUIDED, pixels
from support.small_ddt import awake_ddt, velocity

from configs import dit2_dinov3
from rae_dit.config import ConfigError
from rae_dit.demo import __main__ as demo_main
from rae_dit.demo import catalog as demo_catalog
from rae_dit.demo import model as demo_model
from rae_dit.demo import parts as demo_parts
from rae_dit.demo.__main__ import command_line, parts_of
from rae_dit.demo.catalog import Catalog
from rae_dit.demo.drawing import Choice, draw
from rae_dit.demo.parts import RAEV2, RELEASED, Parts
from rae_dit.demo.uploads import read_picture, reconstruct
from rae_dit.evaluation.reconstruction import psnr
from rae_dit.modes.sample import sample
from rae_dit.sampling.latents import run_sampler, sample_keys
from rae_dit.sampling.trajectory import sample_trajectory
from rae_dit.setup.sampling import options_of

COUNT = 11  # two batches, the second one not full
GUIDANCE = {"sample.cfg_scale": 1.5, "sample.cfg_interval": (0.1, 0.9), **GUIDED}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's model, and what --mode=sample makes with it."""
    folder = tmp_path_factory.mktemp("demo")
    changes = {
        "sample.num_samples": COUNT,
        "sample.labels": "3,5",
        "sample.seed": 7,
        "sample.output_dir": str(folder / "samples"),
        **GUIDANCE,
    }
    config, model = small_model(folder / "no_run", **changes)
    sample(config, folder / "no_run")
    return model, dict(sorted(pixels(folder / "samples").items()))


@pytest.fixture
def catalog(trained, monkeypatch):
    monkeypatch.setattr(demo_catalog, "load_model", lambda source, parts: trained[0])
    return Catalog(["RUN"], Parts())


CHOICE = Choice("RUN", "euler", 4, "autoguidance", 1.5, 0.1, 0.9)


def test_the_page_shows_what_mode_sample_makes(trained, catalog):
    views = draw(catalog, [CHOICE], classes=["3,5"], number=COUNT, seed=7)
    counts = []
    for view in views:
        counts.append(len(view.images[0]) if view.images else 0)
        assert len(view.gallery(0)) == counts[-1]
    assert counts == [0, 0, 8, COUNT, COUNT, COUNT]  # they appear batch by batch
    assert view.message.startswith(f"{COUNT} of {COUNT} images in ")
    for image, expected in zip(view.images[0], trained[1].values(), strict=True):
        np.testing.assert_array_equal(image, expected)
    with zipfile.ZipFile(io.BytesIO(view.archive)) as file:
        assert file.namelist() == [*trained[1], "command.txt"]
        found = np.asarray(Image.open(io.BytesIO(file.read("000001_5.png"))))
        assert file.read("command.txt").decode().strip() == view.commands[0]
    np.testing.assert_array_equal(found, trained[1]["000001_5.png"])


def test_the_command_writes_the_same_files(trained, catalog, tmp_path, monkeypatch):
    *_, view = draw(catalog, [CHOICE], classes=["3,5"], number=COUNT, seed=7)
    words = view.commands[0].replace("--write=images", f"--write={tmp_path}").split()
    monkeypatch.setattr(sys, "argv", words[2:])
    monkeypatch.setattr(demo_main, "use_compile_cache", lambda directory: None)
    demo_main.main()
    written = pixels(tmp_path)
    assert sorted(written) == list(trained[1])
    for name, image in written.items():
        np.testing.assert_array_equal(image, trained[1][name])


def test_two_columns_have_the_same_noise(catalog):
    other = Choice("RUN", "euler", 4, "none", 9, 0.1, 0.9)
    *_, view = draw(catalog, [CHOICE, other], classes=["3"], number=2, seed=7)
    first, second = (np.stack(images) for images in view.images)
    assert (first != second).any()
    assert view.commands[0].split()[4] == "--write=images_A"
    *_, again = draw(catalog, [CHOICE, CHOICE], classes=["3"], number=2, seed=7)
    np.testing.assert_array_equal(np.stack(again.images[0]), np.stack(again.images[1]))
    np.testing.assert_array_equal(np.stack(again.images[0]), first)
    with zipfile.ZipFile(io.BytesIO(again.archive)) as file:
        assert {name.split("/")[0] for name in file.namelist()} == {"A", "B"}


def test_a_mistake_is_a_message_and_draws_nothing(catalog):
    bad = Choice("RUN", "euler", 0, "none", 1, 0, 1)
    *_, view = draw(catalog, [CHOICE, bad], classes=[], number=4, seed=0)
    assert view.message == "steps: got 0; expected a whole number, 1 to 1000"
    assert view.images == []
    *_, view = draw(catalog, [CHOICE], classes=["x"], number=4, seed=0)
    assert view.message.startswith("classes: got 'x'; expected")


def test_an_error_of_a_library_is_a_message_too(catalog, monkeypatch, caplog):
    def fail(*arguments, **keywords):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nmany lines")

    monkeypatch.setattr("rae_dit.demo.drawing.make_images", fail)
    *_, view = draw(catalog, [CHOICE], classes=[], number=4, seed=0)
    assert "RESOURCE_EXHAUSTED" in view.message
    assert "\n" not in view.message
    assert caplog.records  # with its traceback


JUMPS = {"method": "mean_flow", "guidance": "none", "steps": 4, "grid": "full", "shift": 1.0}
OPTIONS = {"method": "euler", "guidance": "cfg", "interval": (0.2, 0.8), "steps": 6}


SDE = {"method": "sde", "guidance": "none", "steps": 5}


@pytest.mark.parametrize("changes", [OPTIONS, SDE, JUMPS], ids=lambda changes: changes["method"])
def test_a_trajectory_leads_where_the_sampler_does(changes):
    options = dataclasses.replace(options_of(RELEASED, 2.5), **changes)
    scale = 1.7 if options.guidance == "cfg" else 1.0
    jumping = options.method == "mean_flow"
    ddt = (
        awake_ddt(scan_layers=True, interval_embedding=True)
        if jumping
        else awake_ddt(scan_layers=True)
    )
    noise = jax.random.normal(jax.random.key(0), (2, 4, 4, 6))
    labels = jnp.array([1, 2])
    keys = sample_keys(jax.random.key(1), jnp.arange(2))
    way = sample_trajectory(ddt, noise, labels, options, cfg_scale=scale, frames=4, keys=keys)
    wanted = run_sampler(ddt, noise, labels, options, cfg_scale=scale, keys=keys)
    np.testing.assert_allclose(way.states[-1], wanted, atol=2e-6)
    np.testing.assert_array_equal(way.states[0], noise)
    np.testing.assert_array_equal(way.estimates[-1], way.states[-1])
    assert len(way.times) == len(way.states) == 4
    assert way.times[0] == 1
    assert (np.diff(way.times) < 0).all()
    # At t = 1, outside the interval of guidance, the clean latents are noise - v.
    expected = noise - (
        ddt(noise, jnp.ones(2), labels, jnp.zeros(2))
        if jumping
        else velocity(ddt, noise, jnp.ones(2), labels)
    )
    np.testing.assert_allclose(way.estimates[0], expected, atol=2e-5)


def test_one_frame_is_no_way():
    with pytest.raises(ValueError, match="frames: got 1; expected at least 2"):
        sample_trajectory(None, None, None, None, cfg_scale=1.0, frames=1)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_an_upload_is_reconstructed(trained, picture):
    model = trained[0]
    original = read_picture(picture, model.image_size, most_bytes=10**6)
    assert original.shape == (model.image_size, model.image_size, 3)
    made = reconstruct(model, original)
    expected = np.asarray(model.rae.decode(model.rae.encode(original[None] / np.float32(255))))
    np.testing.assert_allclose(made.result, np.clip(expected[0], 0, 1) * 255, atol=1.01)
    distance = np.abs(original / 255 - np.clip(expected[0], 0, 1)).mean(-1)
    assert made.largest == pytest.approx(distance.max(), abs=1e-4)
    assert made.difference.max() == 255
    decibels = psnr(original[None] / 255, np.clip(expected, 0, 1))[0]
    assert made.text.startswith(f"PSNR {decibels:.1f} dB")


def bomb(path):
    """A PNG of a few kilobytes that promises 7,500 x 7,500 pixels, which PIL takes."""
    Image.new("L", (1, 1)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = (7_500).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "none"),
        (b"not a picture", "none"),
        (b"<svg onload='alert(1)'/>", "none"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "none"),
        (b"x" * 2000, "at most"),
        (bomb, "too many pixels"),
    ],
)
def test_an_upload_that_is_no_picture_is_one_line(tmp_path, content, words):
    path = tmp_path / "upload.png"
    bomb(path) if callable(content) else path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^picture: got .*{words}.*") as error:
        read_picture(path, 8, most_bytes=1000)
    assert "; expected" in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"^--encoder-layers: missing; expected the blocks that RAEv2's encoder averages"),
        ({"encoder_layers": (0, 1)}, r"^--decoder-pixels: missing; expected 'unit', as RAEv2's"),
    ],
)
def test_files_of_raev2_are_refused_where_no_flag_tells_what_they_do_not_say(
    given, message, monkeypatch
):
    network = SimpleNamespace(architecture=SimpleNamespace(conditioning="tokens"))
    monkeypatch.setattr(demo_model, "load_ddt", lambda source: network)
    monkeypatch.setattr(demo_model, "load_rae", lambda **parts: SimpleNamespace(decoder=1))
    monkeypatch.setattr(demo_parts, "decoder_pixels_of", lambda decoder: None)
    with pytest.raises(ConfigError, match=message):
        demo_model.load_files("ddt.pt", Parts(encoder="dinov3", decoder="decoder.pt", **given))


def test_flags_tell_what_raev2_s_files_do_not_and_it_samples_as_its_reference(monkeypatch):
    architecture = SimpleNamespace(conditioning="tokens", input_size=16)
    network = SimpleNamespace(architecture=architecture, in_channels=4, null_label=3)
    told = {}

    def load_rae(**parts):
        told.update(parts)
        return SimpleNamespace(decoder=1, latent_shape=(16, 16, 4))

    monkeypatch.setattr(demo_model, "load_ddt", lambda source: network)
    monkeypatch.setattr(demo_model, "load_rae", load_rae)
    words = ["FILE", "--encoder=e", "--decoder=d", "--encoder-layers=1,3", "--encoder-add-mean"]
    parts = parts_of(command_line().parse_args([*words, "--decoder-pixels=unit"]))
    assert command_line().parse_args(["FILE", *parts.arguments()]) == command_line().parse_args(
        [*words, "--decoder-pixels=unit"]
    )
    sample = demo_model.load_files("ddt.pt", parts).sample
    assert (told["encoder_layers"], told["encoder_add_mean"]) == ((1, 3), True)
    assert told["decoder_pixels"] == "unit"
    assert (sample.guidance, sample.cfg_scale, sample.cfg_interval) == ("internal", 1.78, (0.1, 1))
    assert (sample.num_steps, sample.grid) == (100, "full")
    reference = dit2_dinov3.get_config().sample
    assert {name: reference[name] for name in RAEV2} == RAEV2
