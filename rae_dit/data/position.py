"""Place in the training stream: what a checkpoint says of the data, and what must not change."""

from collections.abc import Mapping
from typing import Any, Literal

from rae_dit.data.files import Images
from rae_dit.data.order import group_starts
from rae_dit.data.sources import Source
from rae_dit.provenance import Provenance

Shuffle = Literal["records", "groups"]


class ChangedDataError(ValueError):
    """The data differ from those the run was started on."""


def position(
    source: Source, *, step: int, seed: int, batch_size: int, shuffle: Shuffle = "records"
) -> dict[str, int | str]:
    """Describes a place in the training stream: all that a checkpoint needs to know of the data.

    Args:
        source: the records.
        step: number of steps done, hence the step of the next batch.
        seed: as given to `train_batches`.
        batch_size: global, as given to `train_batches`.
        shuffle: as given to `train_batches`.

    Returns:
        A dict for JSON with the keys step, seed, batch_size and fingerprint; and shuffle, "groups",
        where that is how the stream is ordered. No checkpoint had the last one before there was
        such an order.
    """
    found: dict[str, int | str] = {
        "step": step,
        "seed": seed,
        "batch_size": batch_size,
        "fingerprint": source.fingerprint,
    }
    by_groups = shuffle == "groups" and group_starts(source) is not None
    return found | ({"shuffle": "groups"} if by_groups else {})


def saved_shuffle(saved: Mapping[str, Any]) -> Shuffle:
    """Reads the order of the stream off the `position` in a checkpoint."""
    return "groups" if saved.get("shuffle") == "groups" else "records"


def check_position(
    saved: Mapping[str, Any], current: Mapping[str, Any], source: Source | None = None
) -> None:
    """Refuses to resume on other data than the run was started on.

    Args:
        saved: the `position` in the checkpoint.
        current: the `position` of this run, with the step of the restored state.
        source: the records of this run, which may tell why they are others.

    Raises:
        ChangedDataError: naming every field that is missing, unknown or different.
    """
    Provenance.of(current).require_same(
        saved,
        "the data stream changed: data position of the checkpoint",
        _remedy(saved, current, source),
        error=ChangedDataError,
    )


def _remedy(saved: Mapping[str, Any], current: Mapping[str, Any], source: Source | None) -> str:
    """Says how to go on, and why the records are others if that is known."""
    new_run = (
        "start a new run in another workdir; ddt.pretrained or decoder.pretrained gives it the "
        "weights of this one"
    )
    if saved.get("fingerprint") == current.get("fingerprint") or not isinstance(source, Images):
        return "Restore the old settings, or start a new run in another workdir"
    fingerprint, more = source.files.listing.before or ("", "")
    if saved.get("fingerprint") == source.identity(fingerprint):
        return f"The run began when {more} were not read. Move those elsewhere, or {new_run}"
    return (
        "Files were added, removed or renamed since, or the crop changed, or they were listed by "
        f"an older version that read fewer (CHANGELOG.md, Data). Restore them, or {new_run}"
    )
