"""Laws of the order by groups: every record once an epoch, few groups a batch, nothing else."""

import itertools
import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from support.image_files import TRAIN, images_of
from support.parquet_files import table, write_shard

from rae_dit.data.huggingface import open_huggingface
from rae_dit.data.order import BATCHES_PER_WINDOW, GroupOrder, group_starts
from rae_dit.data.pipeline import train_batches
from rae_dit.data.position import check_position, position, saved_shuffle


def sizes_of(case: int) -> tuple[np.ndarray, int, int]:
    """Random sizes of groups, some of them empty, a batch size and a seed."""
    draw = np.random.default_rng(case)
    sizes = draw.integers(0, draw.choice([2, 7, 40]), draw.integers(1, 60))
    sizes[draw.integers(len(sizes))] = 5
    return sizes, int(draw.integers(1, 5 + sizes.sum())), int(draw.integers(1000))


def order_of(sizes: np.ndarray, batch_size: int, seed: int) -> GroupOrder:
    return GroupOrder(np.cumsum([0, *sizes]), batch_size, seed)


@pytest.mark.parametrize("case", range(40))
def test_every_epoch_holds_every_record_once_in_an_order_of_its_own(case: int) -> None:
    sizes, batch_size, seed = sizes_of(case)
    length = int(sizes.sum())
    order = order_of(sizes, batch_size, seed)
    epochs = [[order(epoch * length + row) for row in range(length)] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(length))
    if length > 12:
        assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
        assert epochs[0] != [order_of(sizes, batch_size, seed + 1)(row) for row in range(length)]
    # A place says which record, however one gets there, here backwards and after unpickling.
    copy = pickle.loads(pickle.dumps(order))
    backwards = [copy(place) for place in reversed(range(3 * length))]
    assert backwards[::-1] == list(itertools.chain(*epochs))


def test_a_batch_reads_few_groups_and_each_in_one_go() -> None:
    batch_size, rows = 256, 100
    sizes = np.full(500, rows)
    order = order_of(sizes, batch_size, seed=3)
    length = int(sizes.sum())
    mixed = 0
    for batch in range(2 * length // batch_size):
        places = range(batch * batch_size, (batch + 1) * batch_size)
        groups = [order(place) // rows for place in places]
        runs = [group for group, _ in itertools.groupby(groups)]
        # At most a window's groups, of two windows where one ends.
        assert len(runs) <= 2 * (BATCHES_PER_WINDOW * batch_size // rows + 2)
        mixed += len(set(groups)) > BATCHES_PER_WINDOW * batch_size // rows - 3
    assert mixed > 0.9 * 2 * length // batch_size  # and hardly fewer
    # Between epochs other groups come together.
    firsts = [{order(e * length + i) // rows for i in range(batch_size)} for e in (0, 1)]
    assert len(firsts[0] & firsts[1]) < len(firsts[0]) / 2


def test_a_part_of_a_batch_reads_a_part_of_its_groups() -> None:
    order = order_of(np.full(500, 100), 1024, seed=0)
    whole = {order(place) // 100 for place in range(1024)}
    parts = [{order(place) // 100 for place in range(i, i + 128)} for i in range(0, 1024, 128)]
    assert len(whole) > 35
    assert all(len(part) < 1.2 * len(whole) / 8 + 2 for part in parts)


def test_the_order_never_changes() -> None:
    """Checkpoints say a step and nothing else: another order would be other batches."""
    order = order_of(np.array([3, 4, 2, 5, 1, 4, 3, 2, 4, 4, 3, 5, 2, 2, 3, 4, 1, 2]), 5, seed=7)
    assert [order(place) for place in range(30)] == GOLDEN


GOLDEN = [
    *(35, 34, 42, 29, 45, 11, 37, 39, 14, 43, 20, 41, 36, 33, 30),
    *(21, 13, 32, 28, 31, 10, 12, 38, 44, 46, 19, 9, 40, 47, 6),
]


@pytest.fixture
def shards(tmp_path):
    """Two parquet files of 30 images in groups of 4."""
    for number in range(2):
        rows = table(range(30 * number, 30 * number + 30), nested=True)
        write_shard(tmp_path / f"train-{number:05}-of-00002.parquet", rows, rows=4)
    return tmp_path


def test_parquet_is_read_by_groups_and_records_and_epochs_agree(shards) -> None:
    source = images_of(open_huggingface(str(shards)))
    assert group_starts(source) is not None

    def images(shuffle: str, rows, workers: int = 0) -> list[bytes]:
        settings = TRAIN | {"flip": False, "num_workers": workers, "rows": rows}
        with train_batches(source, **settings, shuffle=shuffle) as stream:
            return [image.tobytes() for b in itertools.islice(stream, 15) for image in b["image"]]

    by_groups, by_records = images("groups", None), images("records", None)
    assert sorted(by_groups) == sorted(by_records)
    assert by_groups != by_records
    assert images("groups", None, workers=2) == by_groups
    halves = [images("groups", rows) for rows in ([0, 3], [1, 2])]
    joined = [halves[i][2 * b + j] for b in range(15) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
    assert joined == by_groups


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0] * 12 + [1] * 12 + [2] * 12, "9 of 9 row groups hold a single class"),
        ([0] * 14 + [1] * 22, "8 of 9 row groups hold a single class"),
        ([0, 1, 2] * 12, None),
        ([0] * 36, None),  # there is one class only
    ],
)
def test_rows_sorted_by_class_are_said(tmp_path, labels: list[int], said: str | None) -> None:
    rows = table(range(36))
    rows = rows.set_column(1, "label", pa.array(labels, pa.int64()))
    write_shard(tmp_path / "data.parquet", rows, rows=4)
    remarks = open_huggingface(str(tmp_path)).listing.remarks
    assert [remark.split(":")[0] for remark in remarks] == ([said] if said else [])


def test_only_parquet_has_groups(tmp_path) -> None:
    write_shard(tmp_path / "data.arrow", table(range(7), nested=True))
    source = images_of(open_huggingface(str(tmp_path)))
    assert group_starts(source) is None
    assert "shuffle" not in position(source, step=0, seed=0, batch_size=4, shuffle="groups")


def test_a_position_says_the_order_and_an_old_one_is_by_records(shards) -> None:
    source = images_of(open_huggingface(str(shards)))
    old = position(source, step=3, seed=0, batch_size=4)
    new = position(source, step=3, seed=0, batch_size=4, shuffle="groups")
    assert old.keys() == {"step", "seed", "batch_size", "fingerprint"}
    assert (saved_shuffle(json.loads(json.dumps(new))), saved_shuffle(old)) == ("groups", "records")
    check_position(new, new)
    for saved, current in ((old, new), (new, old)):
        with pytest.raises(ValueError, match="shuffle: got"):
            check_position(saved, current)
