"""Reconstruction of held-out images and of pictures: figures, files, refusals."""

import json

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from support.small_inception import Projections
from support.small_run import small_config

from rae_dit.config import ConfigError
from rae_dit.data.bad_images import BadShareError
from rae_dit.data.pipeline import ordered_batches
from rae_dit.data.transforms import to_float, to_uint8
from rae_dit.evaluation.feature_extractors import InceptionExtractor
from rae_dit.evaluation.metrics.frechet_distance import Moments, frechet_distance
from rae_dit.evaluation.reconstruction import l1, psnr, ssim
from rae_dit.models.pixels import to_unit
from rae_dit.modes import reconstruct as mode
from rae_dit.modes.reconstruct import reconstruct
from rae_dit.provenance import file_hash
from rae_dit.setup import evaluation as setup

LARGE = {  # 16 pixels: room for SSIM and LPIPS
    "data.image_size": 16,
    "encoder.input_size": 8,
    "decoder.patch_size": 4,
    "data.batch_size": 8,
}


class HalfDistance(nnx.Module):
    """In place of LPIPS."""

    def __init__(self):
        self.half = nnx.Param(np.float32(0.5))

    def __call__(self, a, b):
        return self.half[...] * abs(a - b).mean(axis=(1, 2, 3))


@pytest.fixture(autouse=True)
def autoencoder(monkeypatch):
    """Half as bright and one pixel to the right: known errors, and nothing to compile."""

    def result(graph, parameters, image):
        return 0.5 * jax.numpy.roll(to_unit(image), 1, axis=2)

    monkeypatch.setattr(mode.weights, "with_own_decoder", lambda config, workdir: config)
    monkeypatch.setattr(mode.weights, "place_rae", lambda config, mesh, *, decoder: (None, {}))
    monkeypatch.setattr(mode.codec, "reconstruct", result)


def pair_of(images):
    return images, 0.5 * np.roll(images, 1, axis=2)


def held_out(config, count):
    source = mode.data.held_out(config)
    return np.stack([to_float(source[i]["image"]) for i in range(count)])


def report(folder):
    return json.loads((folder / "reconstruction.json").read_text())


@pytest.mark.parametrize("batch_size", [8, 40])
def test_held_out_images_by_every_measure(monkeypatch, tmp_path, batch_size):
    monkeypatch.setattr(setup, "read_inception", lambda path: Wide())
    monkeypatch.setattr(mode, "read_lpips", lambda vgg, linear: HalfDistance())
    for name in ("inception", "vgg", "linear"):
        (tmp_path / name).write_bytes(b"any")
    files = {
        "evaluate.inception": str(tmp_path / "inception"),
        "perceptual.vgg": str(tmp_path / "vgg"),
        "perceptual.linear": str(tmp_path / "linear"),
    }
    size = {"reconstruct.num_images": 21, "data.batch_size": batch_size}
    config = small_config(**(LARGE | files | size))
    reconstruct(config, tmp_path)
    before, after = pair_of(held_out(config, 21))
    found = report(tmp_path)
    assert found["images"] == 21
    assert found["l1"] == pytest.approx(l1(before, after).mean(), rel=1e-6)
    assert found["psnr"] == pytest.approx(psnr(before, after).mean(), rel=1e-6)
    assert found["ssim"] == pytest.approx(ssim(before, after).mean(), rel=1e-6)
    assert found["lpips"] == pytest.approx(0.5 * found["l1"], rel=1e-5)
    extractor = InceptionExtractor.of(Wide(), batch_size=64, identity="")
    features = [Moments.of(extractor(to_uint8(x) / np.float32(255)).pool) for x in (before, after)]
    assert found["rfid"] == pytest.approx(frechet_distance(*features), rel=1e-6)
    assert found["inception"]["sha256"] == file_hash(tmp_path / "inception")
    assert (tmp_path / "reconstructions.png").is_file()
    assert not (tmp_path / "reconstructions").exists()


class Wide(Projections):
    """Its first 192 pixels alone, so that images of 16 pixels fit."""

    def __call__(self, image):
        return super().__call__(image[:, :8, :8])


def test_digits_are_too_small_for_windows_and_need_no_files(tmp_path):
    reconstruct(small_config(**{"reconstruct.num_images": 5}), tmp_path)
    assert {"images", "l1", "psnr"} <= report(tmp_path).keys()
    assert not {"ssim", "lpips", "rfid"} & report(tmp_path).keys()


def test_a_folder_of_pictures_of_all_sizes_goes_side_by_side(tmp_path):
    (tmp_path / "mine").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("b.png", (16, 16)), ("a.jpg", (40, 30)), ("c.png", (20, 60))):
        picture = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        picture.save(tmp_path / "mine" / name)
    config = small_config(**LARGE, **{"reconstruct.path": str(tmp_path / "mine")})
    reconstruct(config, tmp_path / "run")
    assert report(tmp_path / "run")["images"] == 3
    written = tmp_path / "run" / "reconstructions"
    assert sorted(p.name for p in written.iterdir()) == ["a.jpg.png", "b.png.png", "c.png.png"]
    both = np.asarray(Image.open(written / "b.png.png"))
    original = np.asarray(Image.open(tmp_path / "mine" / "b.png"))
    np.testing.assert_array_equal(both[:, :16], original)
    halved = np.roll(original, 1, axis=1) // 2  # half of a level, truncated
    np.testing.assert_array_equal(both[:, 16:], halved)
    one = small_config(**LARGE, **{"reconstruct.path": str(tmp_path / "mine" / "b.png")})
    reconstruct(one, tmp_path / "one")
    assert report(tmp_path / "one")["images"] == 1


def test_only_the_pairs_that_are_shown_are_kept(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(mode, "draw", lambda path, shown: drawn.append(shown))
    reconstruct(small_config(**{"reconstruct.num_images": 200}), tmp_path)
    assert sum(len(pair.numbers) for pair in drawn[0]) == mode.SHOWN


def test_equal_images_have_no_finite_psnr(monkeypatch, tmp_path):
    monkeypatch.setattr(mode.codec, "reconstruct", lambda graph, parameters, image: to_unit(image))
    reconstruct(small_config(**{"reconstruct.num_images": 3}), tmp_path)
    assert report(tmp_path)["psnr"] is None
    assert report(tmp_path)["l1"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reconstruct.path": "{d}/none"}, "reconstruct.path: got .*none', which does not exist"),
        (
            {"reconstruct.path": "{d}/empty"},
            "reconstruct.path: got .*empty', which holds none; exp",
        ),
        ({"reconstruct.path": "{d}/notes.txt"}, r"reconstruct.path: .*notes.txt', which is none; "),
        ({"evaluate.inception": "{d}/none"}, "evaluate.inception: got .*none'; expected a file of"),
        (
            {"perceptual.vgg": "{d}/none", "perceptual.linear": "{d}/none"},
            "perceptual.vgg: got .*none'; expected a file of weights or ''",
        ),
        (
            {"perceptual.vgg": "{d}/notes.txt", "perceptual.linear": "{d}/notes.txt"},
            "perceptual.vgg: .* expected '' for images of 8 pixels; LPIPS needs 16",
        ),
    ],
)
def test_bad_input_is_one_line_before_anything_is_loaded(monkeypatch, tmp_path, changes, message):
    monkeypatch.setattr(mode.weights, "place_rae", None)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    changes = {name: value.format(d=tmp_path) for name, value in changes.items()}
    with pytest.raises(ConfigError, match=message) as caught:
        reconstruct(small_config(**changes), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_damaged_picture_is_named(tmp_path):
    (tmp_path / "mine").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "mine" / "good.png")
    (tmp_path / "mine" / "bad.png").write_bytes(b"junk")
    config = small_config(**LARGE, **{"reconstruct.path": str(tmp_path / "mine")})
    with pytest.raises(BadShareError, match=r"bad\.png"):
        reconstruct(config, tmp_path / "run")


def test_pictures_are_a_source_like_any_other(tmp_path):
    many = [f"{(7 * i) % 12:02d}.png" for i in range(12)]  # in no order that a disk would have
    for name in (*many, "a.PNG", ".hidden.png", "notes.txt"):
        Image.new("RGB", (9, 9)).save(tmp_path / name, "PNG")
    config = small_config(**LARGE, **{"reconstruct.path": str(tmp_path)})
    source = mode.open_images(config)
    names = [source.name(i).rsplit("/")[-1] for i in range(len(source))]
    assert names == [*sorted(many), "a.PNG"]
    batches = list(ordered_batches(source, batch_size=4, limit=None))
    assert batches[0]["image"].shape == (4, 16, 16, 3)
    np.testing.assert_array_equal(batches[-1]["weight"], [1, 0, 0, 0])


def test_a_picture_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    """A crash in the middle of a PNG leaves the one of before, and nothing else."""
    (tmp_path / "a.png").write_bytes(b"before")
    images = np.zeros((1, 8, 8, 3), np.float32)
    source = mode.Images.__new__(mode.Images)
    monkeypatch.setattr(mode.Images, "name", lambda self, number: "a")

    def torn(self, path, *arguments):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", torn)
    with pytest.raises(OSError, match="disk full"):
        mode.write_pairs(tmp_path, source, mode.Pair(np.array([0]), images, images, None))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"before")]
