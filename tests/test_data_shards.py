"""Which files a path to shards means: patterns, splits, whole sets, and what is left out."""

import pytest

from rae_dit.data.files import SourceError
from rae_dit.data.shard_names import expand_braces, split_of
from rae_dit.data.shards import find_shards


@pytest.fixture
def make(tmp_path):
    """Makes empty files in a directory and returns it."""

    def files(*names):
        for name in names:
            (tmp_path / name).write_bytes(b"")
        return tmp_path

    return files


def found(path, *suffixes) -> list[str]:
    return [file.name for file in find_shards(str(path), suffixes or (".parquet", ".arrow")).files]


def refused(path) -> str:
    with pytest.raises(SourceError) as caught:
        find_shards(str(path), (".parquet", ".arrow", ".tar"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [  # as bash expands them
        ("x-{0000..0002}.tar", ["x-0000.tar", "x-0001.tar", "x-0002.tar"]),
        ("x-{9..11}.tar", ["x-9.tar", "x-10.tar", "x-11.tar"]),
        ("{09..11}", ["09", "10", "11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("{a}{b,}", ["{a}b", "{a}"]),
        ("plain", ["plain"]),
    ],
)
def test_braces_expand_as_in_a_shell(pattern, wanted):
    assert expand_braces(pattern) == wanted


def test_a_pattern_with_braces_names_files_that_all_exist(make):
    root = make("x-0000.tar", "x-0001.tar", "y-0000.tar")
    assert found(f"{root}/x-{{0000..0001}}.tar", ".tar") == ["x-0000.tar", "x-0001.tar"]
    assert found(f"{root}/{{x,y}}-*.tar", ".tar") == ["x-0000.tar", "x-0001.tar", "y-0000.tar"]
    message = refused(f"{root}/x-{{0000..0146}}.tar")
    assert "which names 147 files, of which 145 do not exist (first '" in message
    assert "x-0002.tar'); expected all of them" in message
    assert "matches 0 files" in refused(f"{root}/z-{{0..3}}.tar")
    assert "more than 100,000 files" in refused(f"{root}/x-{{0..99999999}}.tar")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00294.parquet", "train"),
        ("imagenet-1k-training.arrow", "train"),
        ("val_0.tar", "validation"),
        ("x.dev.parquet", "validation"),
        ("valid-0.tar", "validation"),
        ("testing-0.tar", "test"),
        ("my-eval-00.tar", "test"),
        ("evaluation0.tar", "test"),
        ("trainer.parquet", None),
        ("devices-0.tar", None),
        ("data-00000-of-00001.arrow", None),
    ],
)
def test_words_of_splits_are_those_of_datasets(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize("other", ["dev-0", "testing-0", "eval-0", "VAL-0"])
def test_files_of_two_splits_are_refused(make, other):
    root = make("train-0.parquet", f"{other}.parquet")
    assert "train" in refused(root)
    assert "expected one split" in refused(root)
    assert found(root / "train-*") == ["train-0.parquet"]


def test_by_products_of_datasets_are_left_out_and_counted(make):
    names = ["data-00000-of-00001.arrow", "cache-1f.arrow", "cache-2_00000_of_00002.arrow"]
    root = make(*names, "state.json", ".hidden.arrow")
    shards = find_shards(str(root), (".parquet", ".arrow"))
    assert [file.name for file in shards.files] == names[:1]
    assert shards.remarks == ("left out: 2 cache-*.arrow, 1 .json, 1 hidden",)
    assert found(root / "cache-1f.arrow") == ["cache-1f.arrow"]  # who asks for it gets it


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["train-00000-of-00003", "train-00002-of-00003"], "without 1 of the 3 shards of 'train-'"),
        (["a-00001-of-00003"], "without 2 of the 3 shards of 'a-', first shard 0"),
        (
            ["t-00000-of-00001", "t-00000-of-00002", "t-00001-of-00002"],
            "'t-' are shards of sets of 1 and 2",
        ),
        (["t", "t-00000-of-00001"], "'t.parquet' stands beside shards of 't-'"),
        (  # two uploads; older ones end in a hash
            ["t-00000-of-00001-37258dee277c5ca2", "t-00000-of-00001-01327b2e453ae8e9"],
            "shard 0 of 1 of 't-' is there twice",
        ),
    ],
)
def test_sets_that_are_not_whole_are_refused(make, names, problem):
    root = make(*(f"{name}.parquet" for name in names))
    assert problem in refused(root)
    assert problem in refused(root / "*.parquet")  # a pattern that means all


def test_whole_sets_and_chosen_parts_are_read(make):
    root = make("a-00000-of-00002.parquet", "a-00001-of-00002.parquet", "b-1-of-1.parquet")
    assert len(found(root)) == 3
    for path in (root / "a-00001*", root / "a-00001-of-00002.parquet", root / "a-0000[1]-*"):
        shards = find_shards(str(path), (".parquet",))
        assert len(shards.files) == 1
        assert shards.remarks == ("read without 1 of the 2 shards of 'a-', first shard 0",)
