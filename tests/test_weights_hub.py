"""Paths and hub ids, on a hub that is a folder."""

import shutil

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from support.golden_files import GOLDEN

from rae_dit.models.encoders import FAMILIES
from rae_dit.weights.hub import find, find_encoder, pinned
from rae_dit.weights.mapping import WeightsError


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on disk; the calls it got are in the list."""
    calls = []

    def download(repository, *, allow_patterns, revision, local_files_only):
        if not local_files_only:
            calls.append((repository, allow_patterns))
        directory = tmp_path / repository / (revision or "")
        if not directory.exists():
            raise LocalEntryNotFoundError("no network here")
        return str(directory)

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
        "*.safetensors.index*.json",
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


def test_a_revision_is_fetched_logged_and_reported(hub, tmp_path, caplog):
    caplog.set_level("INFO")
    for revision in ("3f2a9c1", "refs/pr/1"):
        (tmp_path / "owner/many" / revision / "deep").mkdir(parents=True)
    assert find("owner/many@3f2a9c1/deep", ()) == tmp_path / "owner/many/3f2a9c1/deep"
    assert "commit 3f2a9c1 of owner/many" in caplog.text
    assert find("owner/many@refs%2Fpr%2F1/deep", ()) == tmp_path / "owner/many/refs/pr/1/deep"
    # The hub names the directory of a revision by its commit.
    assert pinned("owner/many@refs%2Fpr%2F1/deep") == "owner/many@1/deep"
    with pytest.raises(WeightsError, match="got no revision after @"):
        find("owner/many@", ())


def test_reports_of_paths_and_of_what_was_not_fetched_are_unchanged(hub, tmp_path):
    for name in ("", str(tmp_path), "owner/absent", "Dinov2withNorm", "no path"):
        assert pinned(name) == name
    assert hub == []


def test_a_mistyped_path_never_asks_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    for name in ("weights/decoders/model.pt", "weights/decoders", "elsewhere/model.pt"):
        with pytest.raises(WeightsError, match=rf"There is no file {name} \(the hub was not asked"):
            find(name, ())
    with pytest.raises(WeightsError, match="There is no file or directory xxx"):
        find_encoder("x" * 5000)
    assert hub == []
    with pytest.raises(WeightsError, match="hub did not give it"):
        find("weights/decoders@main", ())
    assert len(hub) == 1


def test_home_directories_are_expanded(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(GOLDEN / "rae_mae_encoder", tmp_path / "encoder")
    assert find("~/encoder", ()) == find_encoder("~/encoder") == tmp_path / "encoder"
    with pytest.raises(WeightsError, match="no file or directory ~/absent"):
        find("~/absent", ())


def test_the_reference_s_names_belong_to_one_family_each():
    names = {family.name: tuple(family.huggingface.aliases) for family in FAMILIES}
    assert names == {
        "dinov2": ("Dinov2withNorm",),
        "dinov3": ("DINOv3",),
        "siglip": ("SigLIP2wNorm", "SigLIPwithNorm"),
        "mae": ("MAEwNorm", "MAEwithNorm"),
    }
