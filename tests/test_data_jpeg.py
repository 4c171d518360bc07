"""Another JPEG decoder is used where it gives PIL's pixels, and nowhere else."""

import io
import sys
import types
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from image_files import encoded
from PIL import Image

from rae_dit.data import jpeg
from rae_dit.data.images import BadImageError, decode

CONTENT = encoded(0, "JPEG", (500, 375))


def pil(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[bytes]]]:
    """Puts a decoder in the place of simplejpeg's; gives the list of what it was asked for."""

    def put(decoder: Callable[[bytes], np.ndarray] | None) -> list[bytes]:
        asked: list[bytes] = []

        def decode_jpeg(content: bytes, **settings: object) -> np.ndarray:
            asked.append(content)
            return decoder(content)

        module = None if decoder is None else types.SimpleNamespace(decode_jpeg=decode_jpeg)
        monkeypatch.setitem(sys.modules, "simplejpeg", module)
        jpeg.proven_decoder.cache_clear()
        return asked

    yield put
    jpeg.proven_decoder.cache_clear()


def test_one_with_the_same_pixels_is_used(install) -> None:
    asked = install(pil)
    image = decode(CONTENT)
    assert asked[-1] == CONTENT
    np.testing.assert_array_equal(image, pil(CONTENT))


def one_off(content: bytes) -> np.ndarray:
    """One level off, in one number of coarse files with parts of blocks at the edges."""
    pixels = pil(content).copy()
    if pixels.shape == (51, 37, 3) and len(content) < 2500:
        pixels[50, 36, 2] ^= 1
    return pixels


def no_such_setting(content: bytes) -> np.ndarray:
    raise TypeError("unexpected keyword argument 'strict'")


@pytest.mark.parametrize("decoder", [None, one_off, no_such_setting])
def test_any_other_is_not(install, decoder) -> None:
    asked = install(decoder)
    np.testing.assert_array_equal(decode(CONTENT), pil(CONTENT))
    assert CONTENT not in asked


def test_pil_says_what_is_damaged(install) -> None:
    def picky(content: bytes) -> np.ndarray:
        if content in (CONTENT, cut):
            raise ValueError("Corrupt JPEG data")
        return pil(content)

    cut = CONTENT[: len(CONTENT) // 2]
    asked = install(picky)
    np.testing.assert_array_equal(decode(CONTENT), pil(CONTENT))
    with pytest.raises(BadImageError, match="truncated"):
        decode(cut)
    assert asked[-2:] == [CONTENT, cut]


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("RGB", "PNG"), ("RGB", "WEBP")])
def test_it_is_asked_for_plain_jpegs_only(install, mode: str, kind: str) -> None:
    asked = install(pil)
    decode(CONTENT)  # compares, if it has not yet
    buffer = io.BytesIO()
    Image.open(io.BytesIO(CONTENT)).convert(mode).save(buffer, kind)
    asked.clear()
    decode(buffer.getvalue())
    assert not asked


@pytest.mark.parametrize("shape", [(500, 375), (333, 501), (17, 8), (1, 1)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2, "progressive": True}])
def test_the_real_one_has_the_same_pixels(shape, mode, options) -> None:
    simplejpeg = pytest.importorskip("simplejpeg")
    jpeg.proven_decoder.cache_clear()
    assert jpeg.proven_decoder().func is simplejpeg.decode_jpeg
    image = Image.open(io.BytesIO(encoded(1, "PNG", shape))).convert(mode)
    for quality in (20, 75, 100):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, **options)
        np.testing.assert_array_equal(decode(buffer.getvalue()), pil(buffer.getvalue()))


def test_the_real_one_leaves_damage_to_pil() -> None:
    pytest.importorskip("simplejpeg")
    jpeg.proven_decoder.cache_clear()
    content = encoded(2, "JPEG", (64, 64))
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        harmed = bytearray(content[: rng.integers(100, len(content) + 1)])
        harmed[rng.integers(2, len(harmed))] ^= 1 << rng.integers(8)
        try:
            expected = pil(bytes(harmed))
        except Exception:
            outcomes.add("damaged")
            with pytest.raises(BadImageError):
                decode(bytes(harmed))
        else:
            outcomes.add("readable")
            np.testing.assert_array_equal(decode(bytes(harmed)), expected)
    assert outcomes == {"damaged", "readable"}
