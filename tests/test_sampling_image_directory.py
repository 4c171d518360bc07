"""Directories of samples whose manifest is not ours are refused in one line, and not written."""

import threading

import numpy as np
import pytest

from rae_dit.config import ConfigError
from rae_dit.provenance import Provenance
from rae_dit.sampling.image_directory import ImageDirectory

SETTINGS = Provenance({"num_samples": 2, "seed": 0})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "holds a manifest.json that is not valid JSON"),
        (b"\xff\xfe", "holds a manifest.json that is not valid JSON"),
        (b"[" * 100_000, "holds a manifest.json that is not valid JSON"),
        (b"[1]", "holds a manifest.json that is no dictionary"),
        (b"3", "holds a manifest.json that is no dictionary"),
        (b"{}", "holds None images, more than the 2 asked for"),
        (b'{"num_samples": 1, "seed": 1}', "holds images of other settings"),
    ],
)
def test_other_manifests_are_refused(tmp_path, content, problem):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ConfigError, match=f"^sample.output_dir: {tmp_path} {problem}") as caught:
        ImageDirectory(tmp_path, [0, 1]).claim(SETTINGS)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "manifest.json").read_bytes() == content


def test_the_same_settings_go_on(tmp_path):
    (tmp_path / "manifest.json").write_text('{"num_samples": 1, "seed": 0}')
    directory = ImageDirectory(tmp_path, [0, 1])
    directory.claim(SETTINGS)
    assert directory.missing() == {0, 1}


def test_images_of_other_hosts_are_waited_for(tmp_path):
    """Shared storage shows them late; where it never does, that is one line."""
    directory = ImageDirectory(tmp_path, [0, 1])
    image = np.zeros((8, 8, 3), np.uint8)
    late = threading.Timer(0.5, lambda: directory.write(1, image))
    late.start()
    directory.wait_for([1], 60)
    assert directory.missing() == {0}
    with pytest.raises(ConfigError, match=r"where 1 images that .* not seen after 0.2 s; expected"):
        directory.wait_for([0, 1], 0.2)
