"""Laws of the two passes over a source: the elastic stream and the ordered pass."""

import itertools
import json
import multiprocessing
from typing import Any

import grain
import numpy as np
import pytest
from absl import flags

from rae_dit.data import pipeline
from rae_dit.data.pipeline import Batches, ordered_batches, train_batches
from rae_dit.data.position import check_position, position
from rae_dit.data.sources import synthetic

_TRAIN: dict[str, Any] = {
    "batch_size": 8,
    "seed": 0,
    "start_step": 0,
    "num_workers": 0,
    "flip": True,
}
_ORDERED: dict[str, Any] = {"batch_size": 8, "limit": None}


class Tagged:
    """Record i is black but for its left column, which holds i + 1; record `bad` is floats."""

    fingerprint, num_classes = "tagged", 3

    def __init__(self, length: int, bad: int = -1) -> None:
        self.length, self.bad = length, bad

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /):
        image = np.zeros((4, 4, 3), np.uint8)
        image[:, 0] = index + 1
        return {"image": image.astype(float) if index == self.bad else image, "label": index % 3}


def _tags(batch) -> list[int]:
    """Which records are in a batch of Tagged, mirrored or not."""
    return (batch["image"].max(axis=(1, 2, 3)).astype(int) - 1).tolist()


def _take(source, count, **changes) -> list:
    with train_batches(source, **(_TRAIN | changes)) as stream:
        return list(itertools.islice(stream, count))


# Rows of a batch of 8 that each process reads: all, blocks, and as on a torus.
SHARES = [
    [range(8)],
    [range(4), range(4, 8)],
    [[0, 1], [2, 3], [4, 5], [6, 7]],
    [[0, 1, 6, 7], [2, 3, 4, 5]],
    [[3], [0, 1, 2, 4, 5, 6, 7]],
]
_shares = pytest.mark.parametrize("shares", SHARES, ids=str)


def _joined(per_process, shares) -> list:
    """Global batches of the local ones, each row in its place."""
    order = np.argsort(np.concatenate(shares))
    return [
        {name: np.concatenate([local[name] for local in locals_])[order] for name in locals_[0]}
        for locals_ in zip(*per_process, strict=True)
    ]


def _assert_same(left, right):
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


# ---- the endless stream ----


@_shares
def test_the_global_stream_is_the_same_whichever_rows_a_process_reads(shares):
    source = synthetic(8, 10, 20, seed=0)  # 2.5 batches per epoch: some straddle
    taken = [_take(source, 6, rows=rows) for rows in shares]
    assert taken[0][0]["label"].shape == (len(shares[0]),)
    _assert_same(_joined(taken, shares), _take(source, 6))


@pytest.mark.parametrize("rows", [None, [1, 2, 6]])
def test_starting_at_a_step_is_skipping_the_steps_before(rows):
    source = synthetic(8, 10, 20, seed=0)
    share = {"rows": rows}
    for start in (1, 4):
        late = _take(source, 3, start_step=start, **share)
        _assert_same(late, _take(source, start + 3, **share)[start:])


def test_workers_change_nothing_and_are_gone_after_close():
    flags.FLAGS.unparse_flags()  # as in a notebook, where grain trips over its own flag
    source = synthetic(16, 10, 20, seed=0)
    with train_batches(source, **(_TRAIN | {"start_step": 1, "num_workers": 2})) as stream:
        batches = list(itertools.islice(stream, 5))
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()
    assert all(type(batch["image"]) is np.ndarray for batch in batches)
    _assert_same(batches, _take(source, 5, start_step=1))


def test_an_error_in_a_worker_reaches_the_user_with_its_record():
    with (
        train_batches(Tagged(20, bad=13), **(_TRAIN | {"num_workers": 1})) as stream,
        pytest.raises(ValueError, match="record 13 "),
    ):
        list(itertools.islice(stream, 3))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("length", [24, 20])  # 20: every other epoch ends within a batch
def test_every_epoch_holds_every_record_once_in_an_order_of_its_own(length):
    tags = [tag for batch in _take(Tagged(length), 15) for tag in _tags(batch)]
    epochs = [tags[start : start + length] for start in range(0, 120 - length + 1, length)]
    assert len(epochs) == 120 // length
    for epoch in epochs:
        assert sorted(epoch) == list(range(length))
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    assert list(range(length)) not in epochs


def test_labels_stay_with_their_images():
    for batch in _take(Tagged(24), 3):
        np.testing.assert_array_equal(batch["label"], np.array(_tags(batch)) % 3)


def test_the_seed_decides():
    first, other = _take(Tagged(24), 3), _take(Tagged(24), 3, seed=1)
    assert [_tags(batch) for batch in first] != [_tags(batch) for batch in other]


def test_flip_mirrors_some_images_and_moves_none():
    source = Tagged(24)
    plain, mirrored = _take(source, 12, flip=False), _take(source, 12, flip=True)
    assert [_tags(batch) for batch in plain] == [_tags(batch) for batch in mirrored]
    assert all((batch["image"][:, :, 0] > 0).all() for batch in plain)
    turned = [(batch["image"][:, 0, -1, 0] > 0).tolist() for batch in mirrored]
    assert 0.2 < np.mean(turned) < 0.8
    # Another coin in every epoch (three batches): the same image is seen both ways.
    coins = [dict(zip(_tags(b), t, strict=True)) for b, t in zip(mirrored, turned, strict=True)]
    epochs = [coins[i] | coins[i + 1] | coins[i + 2] for i in range(0, 12, 3)]
    assert any(epochs[0][tag] != epoch[tag] for epoch in epochs for tag in epoch)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_batch_is_what_a_device_wants(batch_size):
    for batch in _take(synthetic(16, 10, 24, seed=0), 6, batch_size=batch_size):
        assert batch.keys() == {"image", "label"}
        assert batch["image"].shape == (batch_size, 16, 16, 3)
        assert batch["image"].dtype == np.uint8
        assert batch["image"].flags.c_contiguous
        assert batch["image"].min() < batch["image"].max()
        assert batch["label"].shape == (batch_size,)
        assert batch["label"].dtype == np.int32


def test_an_image_arrives_unchanged():
    source = synthetic(8, 10, 10, seed=0)
    for batch in _take(source, 2, batch_size=10, flip=False):
        for image, label in zip(batch["image"], batch["label"], strict=True):
            np.testing.assert_array_equal(image, source[label]["image"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 25}, "batch_size: got 25 with 24 records"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"rows": []}, r"rows: got \[\]"),
        ({"rows": [0, 8]}, r"rows: got \[0, 8\]; expected ascending numbers in 0\.\.7"),
        ({"rows": [-1]}, r"rows: got \[-1\]"),
        ({"rows": [1, 0]}, r"rows: got \[1, 0\]"),
        ({"rows": [1, 1]}, r"rows: got \[1, 1\]"),
        ({"start_step": -1}, "start_step: got -1"),
        ({"seed": -1}, "seed: got -1"),
        ({"num_workers": -1}, "num_workers: got -1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        train_batches(Tagged(24), **(_TRAIN | changes))


def test_a_bad_record_is_named_and_ends_the_stream():
    stream = train_batches(Tagged(24, bad=17), **_TRAIN)
    with pytest.raises(ValueError, match=r"record 17: .*float64"):
        list(itertools.islice(stream, 3))
    with pytest.raises(ValueError, match="stream is closed"):
        next(stream)


def test_a_closed_stream_says_so():
    stream = train_batches(Tagged(24), **_TRAIN)
    next(stream)
    stream.close()
    stream.close()
    with pytest.raises(ValueError, match="stream is closed"):
        next(stream)


def test_an_endless_stream_that_ends_is_an_error():
    finite = grain.MapDataset.range(1).map(lambda number: {"number": np.array(number)})
    stream = Batches(iter(finite.to_iter_dataset()), endless=True)
    assert next(stream)["number"] == 0
    with pytest.raises(RuntimeError, match="endless data stream ended"):
        next(stream)


# ---- the ordered pass ----


@_shares
@pytest.mark.parametrize(
    ("length", "limit"), [(24, None), (21, None), (17, None), (3, None), (21, 9), (21, 99)]
)
def test_every_record_is_seen_once_in_order_whatever_the_processes(length, limit, shares):
    taken = [
        list(ordered_batches(Tagged(length), batch_size=8, limit=limit, rows=rows))
        for rows in shares
    ]
    wanted = length if limit is None else min(length, limit)
    assert [len(batches) for batches in taken] == [-(-wanted // 8)] * len(shares)
    joined = _joined(taken, shares)
    weight = np.concatenate([batch["weight"] for batch in joined])
    assert weight.tolist() == [1.0] * wanted + [0.0] * (-wanted % 8)
    tags = [tag for batch in joined for tag in _tags(batch)]
    assert tags == list(range(wanted)) + [-1] * (-wanted % 8)  # -1: all black
    label = np.concatenate([batch["label"] for batch in joined])
    assert label.tolist() == [index % 3 for index in range(wanted)] + [0] * (-wanted % 8)


@pytest.mark.parametrize(("start", "limit"), [(3, None), (8, None), (5, 16), (23, None)])
@_shares
def test_an_ordered_pass_goes_on_at_any_record(start, limit, shares):
    settings = {"batch_size": 8, "limit": limit, "start": start}
    taken = [list(ordered_batches(Tagged(24), **settings, rows=rows)) for rows in shares]
    rows = (limit or 24) - start
    assert [len(batches) for batches in taken] == [-(-rows // 8)] * len(shares)
    joined = _joined(taken, shares)
    tags = [tag for batch in joined for tag in _tags(batch)]
    assert tags == list(range(start, start + rows)) + [-1] * (-rows % 8)
    weight = np.concatenate([batch["weight"] for batch in joined])
    assert weight.tolist() == [1.0] * rows + [0.0] * (-rows % 8)


@pytest.mark.parametrize("length", [5, 20])  # one batch, three batches
def test_an_ordered_pass_is_the_same_with_workers(length, monkeypatch):
    monkeypatch.setattr(pipeline, "_WORTH_WORKERS", 0)
    source = synthetic(16, 3, length, seed=0)
    alone = list(ordered_batches(source, **_ORDERED))
    with ordered_batches(source, **_ORDERED, num_workers=2) as stream:
        shared = [next(stream)]
        assert len(multiprocessing.active_children()) == min(2, len(alone))
        shared += stream
    assert not multiprocessing.active_children()
    assert len(alone) == len(shared) == -(-length // 8)
    for one, other in zip(alone, shared, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_no_workers_are_started_for_a_short_pass():
    with ordered_batches(Tagged(24), **_ORDERED, num_workers=2) as stream:
        next(stream)
        assert not multiprocessing.active_children()


def test_an_ordered_batch_is_what_a_device_wants():
    for batch in ordered_batches(synthetic(16, 10, 5, seed=0), **_ORDERED):
        assert batch.keys() == {"image", "label", "weight"}
        assert batch["image"].shape == (8, 16, 16, 3)
        assert batch["image"].dtype == np.uint8
        assert batch["label"].shape == (8,)
        assert batch["label"].dtype == np.int32
        assert batch["weight"].shape == (8,)
        assert batch["weight"].dtype == np.float32
        assert batch["image"].flags.c_contiguous


def test_the_ordered_pass_ends_and_stays_ended():
    batches = ordered_batches(Tagged(8), **_ORDERED)
    assert len(list(batches)) == 1
    assert list(batches) == []


def test_the_ordered_pass_names_a_bad_record():
    with pytest.raises(ValueError, match="record 10 "):
        list(ordered_batches(Tagged(24, bad=10), **_ORDERED))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 0}, "limit: got 0"),
        ({"start": -1}, "start: got -1"),
        ({"start": 25}, r"start: got 25; expected 0\.\.24"),
        ({"batch_size": -1}, "batch_size: got -1"),
        ({"rows": [8]}, r"rows: got \[8\]"),
    ],
)
def test_the_ordered_pass_refuses_numbers_at_once(changes, message):
    with pytest.raises(ValueError, match=message):
        ordered_batches(Tagged(24), **(_ORDERED | changes))


# ---- the position ----


def test_a_position_survives_json_and_fits_itself():
    current = position(Tagged(24), step=7, seed=1, batch_size=8)
    assert current == {"step": 7, "seed": 1, "batch_size": 8, "fingerprint": "tagged"}
    check_position(json.loads(json.dumps(current)), current)


@pytest.mark.parametrize(
    ("field", "value"), [("step", 8), ("seed", 2), ("batch_size", 16), ("fingerprint", "other")]
)
def test_a_changed_position_is_refused_by_name(field, value):
    saved = position(Tagged(24), step=7, seed=1, batch_size=8)
    with pytest.raises(ValueError, match=f"{field}: got .*; expected {value!r}") as caught:
        check_position(saved, saved | {field: value})
    others = saved.keys() - {field}
    assert not any(f"{other}:" in str(caught.value) for other in others)


def test_a_position_with_other_fields_is_refused():
    saved = position(Tagged(24), step=7, seed=1, batch_size=8)
    current = dict(saved)
    del saved["seed"]
    for pair in ((saved, current), (current, saved)):
        with pytest.raises(
            ValueError, match=r"seed: got (1; expected nothing|nothing; expected 1)\."
        ):
            check_position(*pair)
