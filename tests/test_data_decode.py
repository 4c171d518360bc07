"""Laws of decoding."""

import io
import struct

import numpy as np
import pytest
from PIL import Image
from support.image_files import encoded

from rae_dit.data import images
from rae_dit.data.images import BadImageError, decode


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_decode_reads_every_kind(kind):
    exact = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    options = exact | {"PNG": {}, "BMP": {}}
    image = Image.fromarray(np.full((12, 20, 3), (200, 100, 50), np.uint8))
    image.paste((10, 20, 250), (0, 0, 8, 8))
    found = decode(saved(image, kind, **options[kind]))
    assert found.mode == "RGB"
    assert found.size == (20, 12)
    np.testing.assert_allclose(np.asarray(found, int), np.asarray(image), atol=4)
    assert kind == "JPEG" or np.array_equal(found, image)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "JPEG"), ("L", "PNG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"),
     ("1", "PNG"), ("RGBA", "WEBP")],
)  # fmt: skip
def test_decode_makes_rgb_of_everything(mode, kind):
    image = Image.new("RGB", (16, 16), (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, 8, 16))
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode(saved(image.convert(mode), kind, **options))
    assert found.mode == "RGB"
    np.testing.assert_allclose(np.asarray(found, int), np.asarray(image), atol=3)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_decode_does_not_copy_what_is_rgb(kind, monkeypatch):
    content = encoded(0, kind)
    monkeypatch.setattr(Image.Image, "copy", None)
    assert np.asarray(decode(content)).shape == (24, 31, 3)


def test_decode_drops_alpha():
    image = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    assert decode(saved(image, "PNG")).getpixel((0, 0)) == (200, 100, 50)


def test_decode_leaves_the_orientation_to_the_reference():
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    assert decode(saved(picture(20, 10), "JPEG", exif=exif)).size == (20, 10)


RAMP = np.linspace(0, 65535, 256).astype(np.uint16).reshape(4, 64)


@pytest.mark.parametrize(
    ("kind", "order"),
    [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("PPM", "<u2"), ("JPEG2000", "<u2")],
)
def test_16_bit_gray_images_keep_their_upper_8_bits(kind, order):
    found = np.asarray(decode(saved(Image.fromarray(RAMP.astype(order)), kind)))
    twin = np.asarray(decode(saved(Image.fromarray((RAMP >> 8).astype(np.uint8)), "PNG")))
    np.testing.assert_array_equal(found, twin)
    assert len(np.unique(found)) == 256


def test_12_bit_gray_images_keep_their_upper_8_bits():
    """A TIFF of two pixels, 0x123 and 0xFED, packed into three bytes."""
    tags = [
        (256, 2),
        (257, 1),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 1),
        (279, 3),
    ]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    content = b"II*\0" + struct.pack("<I", 12) + b"\x12\x3f\xed\0"
    content += struct.pack("<H", len(tags)) + entries + bytes(4)
    assert np.asarray(decode(content))[0, :, 0].tolist() == [0x12, 0xFE]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_refused(dtype):
    pixels = np.linspace(0, 1, 256).reshape(16, 16) * (1 if dtype == np.float32 else 2**20)
    with pytest.raises(BadImageError, match=r"^its pixels are .*, whose range is unknown"):
        decode(saved(Image.fromarray(pixels.astype(dtype)), "TIFF"))


def test_every_ending_of_a_format_is_known_and_no_program_is_called():
    Image.init()
    endings = Image.registered_extensions().items()
    assert {ending for ending, kind in endings if kind in images._FORMATS} <= {*images.SUFFIXES}
    with pytest.raises(BadImageError, match="cannot identify"):
        decode(saved(picture(8, 8), "EPS"))  # PIL would give it to Ghostscript


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95])
def test_decode_refuses_what_is_cut_off(kind, share):
    whole = encoded(0, kind)
    decode(whole)
    with pytest.raises(BadImageError) as caught:
        decode(whole[: int(len(whole) * share)])
    assert str(caught.value)
    assert "BytesIO" not in str(caught.value)


def test_decode_refuses_what_is_no_picture():
    with pytest.raises(BadImageError, match=r"^cannot identify image file$"):
        decode(b"<html>404 not found</html>")
    decode(saved(picture(400, 4), "PNG"))
    with pytest.raises(BadImageError, match="401 x 4 pixels is no picture"):
        decode(saved(picture(401, 4), "PNG"))
