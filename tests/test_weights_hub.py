"""Paths and hub ids, on a hub that is a folder."""

import shutil

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from support.golden_files import GOLDEN

from rae_dit.models.encoders import FAMILIES
from rae_dit.weights.hub import find, find_encoder
from rae_dit.weights.mapping import WeightsError


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on disk; the calls it got are in the list."""
    calls = []

    def download(repository, *, allow_patterns):
        calls.append((repository, allow_patterns))
        if not (tmp_path / repository).exists():
            raise LocalEntryNotFoundError("no network here")
        return str(tmp_path / repository)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


def test_local_paths_never_ask_the_hub(hub):
    assert find_encoder(GOLDEN / "rae_mae_encoder") == GOLDEN / "rae_mae_encoder"
    assert hub == []


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("Dinov2withNorm", "facebook/dinov2-with-registers-base"),
        ("SigLIP2wNorm", "google/siglip2-base-patch16-256"),
        ("SigLIPwithNorm", "google/siglip2-base-patch16-256"),
        ("MAEwNorm", "facebook/vit-mae-base"),
        ("MAEwithNorm", "facebook/vit-mae-base"),
    ],
)
def test_names_of_the_reference_are_hub_ids(name, repository, hub, tmp_path):
    shutil.copytree(GOLDEN / "rae_mae_encoder", tmp_path / repository)
    assert find_encoder(name) == tmp_path / repository
    assert hub[0][0] == repository


def test_a_repository_without_safetensors_is_asked_for_its_bin(hub, tmp_path):
    (tmp_path / "owner/old").mkdir(parents=True)
    find_encoder("owner/old")
    assert [patterns[-1] for _, patterns in hub] == [
        "*.safetensors.index.json",
        "pytorch_model.bin",
    ]


def test_a_path_inside_a_repository_is_all_that_is_fetched(hub, tmp_path):
    (tmp_path / "owner/many/deep").mkdir(parents=True)
    (tmp_path / "owner/many/deep/model.pt").touch()
    found = find("owner/many/deep/model.pt", ("config.json",))
    assert found == tmp_path / "owner/many/deep/model.pt"
    assert hub[0][1] == ["deep/model.pt/config.json", "deep/model.pt"]
    with pytest.raises(WeightsError, match="owner/many has no deep/other"):
        find("owner/many/deep/other", ("config.json",))


def test_offline_and_mistyped_paths_say_what_to_do(hub):
    with pytest.raises(WeightsError, match=r"hf download owner/absent"):
        find("owner/absent", ())
    for path in ("./absent/model.pt", "/absent/model.pt", "absent"):
        with pytest.raises(WeightsError, match="no file or directory"):
            find(path, ())
    assert len(hub) == 1


def test_the_reference_s_names_belong_to_one_family_each():
    names = {family.name: tuple(family.huggingface.aliases) for family in FAMILIES}
    assert names == {
        "dinov2": ("Dinov2withNorm",),
        "siglip": ("SigLIP2wNorm", "SigLIPwithNorm"),
        "mae": ("MAEwNorm", "MAEwithNorm"),
    }
