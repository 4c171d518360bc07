"""Laws of damaged images: replaced, counted, named, and nothing else changes."""

import logging

import numpy as np
import pytest
from support.image_files import TRAIN, assert_same, images_of, take
from support.memory_files import Memory

from rae_dit.data.bad_images import BadShareError, Replacements
from rae_dit.data.files import PackedStrings
from rae_dit.data.pipeline import ordered_batches, train_batches

_ORDERED = {"batch_size": 4, "limit": None}


def rows(batches) -> list[bytes]:
    return [image.tobytes() for batch in batches for image in batch["image"]]


def messages(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("crop", ["adm_center", "random", "random_resized"])
@pytest.mark.parametrize("damage", [{"bad": (4, 7)}, {"lost": (4, 7)}])
def test_only_the_damaged_rows_change(damage, crop):
    whole, damaged = images_of(Memory(), crop=crop), images_of(Memory(**damage), crop=crop)
    before, after = take(whole, 6, flip=False), take(damaged, 6, flip=False)
    same = [a == b for a, b in zip(rows(before), rows(after), strict=True)]
    assert (len(same), same.count(False)) == (24, 4)  # two files in two epochs
    assert damaged[4]["image"].tobytes() != whole[4]["image"].tobytes()
    assert (damaged[4]["replaced"], damaged[5]["replaced"]) == (True, False)


def test_the_substitute_is_another_record_with_its_label_and_always_the_same():
    whole, damaged = images_of(Memory()), images_of(Memory(bad=(4, 5, 6, 7)))
    known = {whole[i]["image"].tobytes(): whole[i]["label"] for i in range(12)}
    assert len(known) == 12
    chosen = [damaged[i] for i in (4, 5, 6, 7)]
    for record in chosen:
        assert known[record["image"].tobytes()] == record["label"]
    assert len({record["image"].tobytes() for record in chosen}) > 1  # far away, not one neighbour
    again = images_of(Memory(bad=(4, 5, 6, 7)))
    for index, record in zip((4, 5, 6, 7), chosen, strict=True):
        np.testing.assert_array_equal(again[index]["image"], record["image"])


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_is_counted_named_once_and_leaves_the_stream_elastic(workers, caplog):
    source = images_of(Memory(bad=(4,), lost=(7,)))
    before = take(source, 6)
    caplog.clear()
    with (
        caplog.at_level(logging.WARNING, "rae_dit"),
        train_batches(source, **(TRAIN | {"num_workers": workers})) as stream,
    ):
        assert stream.replaced == 0
        batches = [next(stream) for _ in range(6)]
        assert stream.replaced == 4  # two files in two epochs
    named = sorted(messages(caplog))
    assert len(named) == 2
    assert named[0].endswith("file-4: image file is truncated")
    assert named[1].endswith("file-7: file 7 is gone")
    assert_same(batches, before)
    assert_same(take(source, 3, start_step=3), before[3:])


@pytest.mark.parametrize("workers", [0, 2])
def test_too_large_a_share_stops_the_run(workers):
    source = images_of(Memory(bad=(1, 2, 3)), max_bad_share=0.17)  # two of twelve are allowed
    with (
        train_batches(source, **(TRAIN | {"num_workers": workers})) as stream,
        pytest.raises(BadShareError) as caught,
    ):
        [next(stream) for _ in range(3)]
    message = str(caught.value)
    assert message.startswith("3 of 12 images are damaged, the last being file-")
    assert ", a share of 0.25; expected at most data.max_bad_share = 0.17. " in message
    with pytest.raises(ValueError, match="stream is closed"):
        next(stream)


@pytest.mark.parametrize("start_step", [0, 1, 2])
def test_a_share_that_is_allowed_never_stops_a_run(start_step):
    source = images_of(Memory(bad=(1, 2, 3)), max_bad_share=0.25)
    take(source, 20, start_step=start_step)  # also where the first rows straddle two passes
    take(images_of(Memory(), max_bad_share=0.0), 3)


def test_no_share_allowed_stops_at_the_first():
    with pytest.raises(BadShareError, match=r"^1 of 12 images .* file-1, a share of 0\.0833"):
        take(images_of(Memory(bad=(1,)), max_bad_share=0.0), 3)


def test_a_process_judges_by_what_it_has_met():
    source = images_of(Memory(bad=(1, 2, 3)))
    replacements = Replacements(source, records=12, process_count=3)
    source_share = [(1, "1 of 4"), (2, "2 of 4"), (3, "3 of 6")]
    strict = Replacements(images_of(Memory(), max_bad_share=0.0), records=12, process_count=3)
    for index, message in source_share:  # batches of two; a pass of a process has four rows
        with pytest.raises(BadShareError, match=f"^{message} images"):
            strict.note(np.array([index, -1]))
    replacements.note(np.array([1, 2]))  # half of the four is allowed
    for _ in range(20):
        replacements.note(np.array([3, -1, 1, 2]))  # 3 of 6, ..., 3 of 12
    assert replacements.count == 62
    slow = Replacements(images_of(Memory(), max_bad_share=0.3), records=12, process_count=3)
    for index in (1, 2, 3):
        slow.note(np.array([index, -1, -1, -1]))  # 1 of 4, 2 of 8, 3 of 12
    with pytest.raises(BadShareError, match=r"^4 of 12 images"):  # a later pass adds no records
        slow.note(np.array([4, -1, -1, -1]))


def test_the_ordered_pass_replaces_counts_and_pads():
    whole = list(ordered_batches(images_of(Memory()), **(_ORDERED | {"limit": 10})))
    with ordered_batches(images_of(Memory(bad=(4,))), **(_ORDERED | {"limit": 10})) as batches:
        damaged = list(batches)
        assert batches.replaced == 1
    same = [a == b for a, b in zip(rows(whole), rows(damaged), strict=True)]
    assert [index for index, equal in enumerate(same) if not equal] == [4]
    assert damaged[0].keys() == {"image", "label", "weight"}
    # The substitute weighs nothing: it has a row of its own.
    weights = [batch["weight"].tolist() for batch in damaged]
    assert weights == [[1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 0]]
    with pytest.raises(BadShareError, match="file-4"):
        list(ordered_batches(images_of(Memory(bad=(4,)), max_bad_share=0.05), **_ORDERED))


@pytest.mark.parametrize("crop", ["random", "random_resized"])
def test_an_ordered_pass_takes_the_centre_whatever_the_crop(crop):
    centre = list(ordered_batches(images_of(Memory()), **_ORDERED))
    random = list(ordered_batches(images_of(Memory(), crop=crop), **_ORDERED))
    assert rows(centre) == rows(random)


@pytest.mark.parametrize("crop", ["random", "random_resized"])
def test_random_crops_differ_between_epochs_and_follow_the_step(crop):
    source = images_of(Memory(), crop=crop)
    whole = take(source, 6, flip=False)
    assert len(set(rows(whole))) == 24  # 12 files, twice, never the same place
    for other in {"adm_center", "random", "random_resized"} - {crop}:
        assert set(rows(whole)).isdisjoint(
            rows(take(images_of(Memory(), crop=other), 3, flip=False))
        )
    assert_same(take(source, 2, start_step=4, flip=False), whole[4:])
    assert_same(take(source, 6, flip=False, num_workers=2), whole)
    halves = [take(source, 6, flip=False, rows=range(2 * i, 2 * i + 2)) for i in (0, 1)]
    for both, left, right in zip(whole, *halves, strict=True):
        assert rows([both]) == rows([left, right])


def test_crop_and_size_are_in_the_fingerprint():
    variants = [{}, {"crop": "random"}, {"crop": "random_resized"}, {"image_size": 8}]
    assert len({images_of(Memory(), **changes).fingerprint for changes in variants}) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_a_lost_disk_stops_at_once(workers):
    lost = images_of(Memory())
    gone = images_of(Memory(lost=tuple(range(12))))
    with pytest.raises(OSError, match=r"none of 16 files .* file-0: file 0 is gone; expected"):
        take(gone, 1)
    assert lost[0]["replaced"] is False


def test_a_label_outside_is_named():
    with pytest.raises(ValueError, match=r"file-\d+: got label 2; expected 0\.\.1\."):
        take(images_of(Memory(), classes=2), 3)


def test_strings_are_kept():
    values = [b"", b"a", "é".encode(), b"", b"long" * 9]
    strings = PackedStrings(values)
    assert [strings[i] for i in range(len(strings))] == values
