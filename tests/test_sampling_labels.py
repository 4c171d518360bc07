"""Labels of the images to sample: chosen by number or name, in turn or drawn."""

import collections

import pytest
from support.small_run import small_config

from rae_dit.config import ConfigError
from rae_dit.sampling.labels import class_names, display_names, image_labels


def labels(**changes):
    return image_labels(small_config(**{f"sample.{name}": v for name, v in changes.items()}))


def test_equal_takes_the_classes_in_turn():
    assert labels(labels="3,0", num_samples=5) == [3, 0, 3, 0, 3]
    assert labels(num_samples=6) == [0, 1, 2, 3, 0, 1]


def test_random_labels_depend_on_the_seed_and_their_number_only():
    drawn = labels(label_mode="random", num_samples=400, labels="1-3")
    assert drawn[:100] == labels(label_mode="random", num_samples=100, labels="1-3")
    assert drawn[:100] == labels(label_mode="random", num_samples=100, labels="1-3", batch_size=7)
    assert drawn[:100] != labels(label_mode="random", num_samples=100, labels="1-3", seed=1)
    counts = collections.Counter(drawn)
    assert counts.keys() == {1, 2, 3}
    assert min(counts.values()) > 100  # of 133


def test_a_list_of_names(tmp_path):
    names, chosen = tmp_path / "names.txt", tmp_path / "chosen.txt"
    names.write_text("cat\ndog\nowl, strix\nfox\n")
    chosen.write_text("Strix\ncat\n")
    found = labels(class_list=str(chosen), class_names=str(names), num_samples=3)
    assert found == [2, 0, 2]
    config = small_config(**{"sample.class_names": str(names)})
    assert display_names(config) == ["cat", "dog", "owl", "fox"]


def test_digits_and_synthetic_classes_are_named_by_their_numbers(tmp_path):
    chosen = tmp_path / "chosen.txt"
    chosen.write_text("3\n1\n")
    assert labels(class_list=str(chosen), num_samples=2) == [3, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample.class_list": "none.txt"}, r"sample.class_list: got 'none.txt' \(No such file"),
        ({"sample.class_names": "none.txt"}, r"sample.class_names: got 'none.txt' \(No such"),
        (
            {"data.source": "tar", "data.path": "x", "sample.class_list": "CHOSEN"},
            "sample.class_names: got ''; expected a file of all 4 names, because data.source 'tar'",
        ),
        (
            {"data.source": "folder", "data.path": "/nowhere", "sample.class_list": "CHOSEN"},
            "data.path: got '/nowhere', which does not exist",
        ),
        (
            {"sample.class_list": "CHOSEN", "sample.class_names": "CHOSEN"},
            "sample.class_names: got '.*chosen.txt' with 1 names; expected data.num_classes = 4",
        ),
        (
            {"sample.class_list": "EMPTY"},
            "sample.class_list: got .*empty.txt', which holds no name",
        ),
        (
            {"sample.class_list": "CHOSEN"},
            "sample.class_list: got 'cat', which no class is named; classes are named like '0'",
        ),
    ],
)
def test_classes_that_cannot_be_found(tmp_path, changes, message):
    (tmp_path / "chosen.txt").write_text("cat\n")
    (tmp_path / "empty.txt").write_text("\n")
    files = {"CHOSEN": str(tmp_path / "chosen.txt"), "EMPTY": str(tmp_path / "empty.txt")}
    changes = {name: files.get(value, value) for name, value in changes.items()}
    config = small_config(**changes)
    look = image_labels if config.sample.class_list else class_names
    with pytest.raises(ConfigError, match=message) as caught:
        look(config)
    assert "\n" not in str(caught.value)


def test_pictures_get_numbers_where_names_are_out_of_reach():
    config = small_config(**{"data.source": "folder", "data.path": "/nowhere"})
    assert display_names(config) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance": "autoguidance"}, "sample.guide_checkpoint: got ''; expected a workdir"),
        ({"guide_checkpoint": "runs/a"}, "sample.guide_checkpoint: got 'runs/a'; expected '' bec"),
        ({"class_list": "a.txt", "labels": "0"}, "sample.class_list: got 'a.txt'; expected '' bec"),
        ({"labels": "9"}, r"sample.labels: got '9'; expected '' or labels in \[0, 3\]"),
        ({"num_samples": 0}, "sample.num_samples: got 0; expected an int >= 1"),
        ({"method": "sde", "num_steps": 1, "grid": "full"}, "points for method 'sde'"),
        ({"last_step_size": 1.0}, r"last_step_size: got 1.0; expected a finite float in \(0, 1\)"),
    ],
)
def test_settings_that_exclude_each_other(changes, message):
    with pytest.raises(ConfigError, match=message):
        labels(**changes)
