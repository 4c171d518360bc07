"""Iterator of batches with its threads and worker processes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack

import grain
import numpy as np

from rae_dit.data.bad_images import Replacements
from rae_dit.data.workers import WorkerBatches

Batch = dict[str, np.ndarray]


class Batches(AbstractContextManager["Batches"], Iterator[Batch]):
    """An iterator of batches that owns threads and perhaps worker processes.

    Use it in a `with` block, or call `close`: workers that are not closed print errors at exit and
    leak shared memory. An error ends the stream, because grain would silently lose records if
    one carried on behind it.
    """

    def __init__(
        self,
        iterator: WorkerBatches | grain.DatasetIterator,
        *,
        endless: bool,
        replacements: Replacements | None = None,
    ) -> None:
        """Starts reading.

        Args:
            iterator: yields batches; a column "replaced" is taken out of them and counted.
            endless: whether its end is an error.
            replacements: counts that column; None if there is none.
        """
        self._iterator: WorkerBatches | grain.DatasetIterator | None = iterator
        self._endless = endless
        self._replacements = replacements

    @property
    def replaced(self) -> int:
        """Number of rows so far, on this process, in which a damaged record was replaced."""
        return 0 if self._replacements is None else self._replacements.count

    def __next__(self) -> Batch:
        if self._iterator is None:
            if not self._endless:
                raise StopIteration
            raise ValueError(
                "the data stream is closed; expected an open one. "
                "Open another with train_batches(..., start_step=<the next step>)."
            )
        with ExitStack() as unless_it_went_well:
            unless_it_went_well.callback(self.close)
            shared = next(self._iterator, None)
            if shared is not None:
                # Workers hand over a subclass that lives in shared memory; show plain arrays.
                batch = {name: value.view(np.ndarray) for name, value in shared.items()}
                if self._replacements is not None:
                    self._replacements.note(batch.pop("replaced"))
                unless_it_went_well.pop_all()
                return batch
        if self._endless:
            raise RuntimeError(
                "the endless data stream ended, so a worker died without an error. "
                "Run again with data.num_workers=0 to see why."
            )
        raise StopIteration

    def close(self) -> None:
        """Stops threads and workers. May be called twice; the stream cannot be used after."""
        if self._iterator is not None:
            self._iterator.close()
            # Let go of it too: batches it has fetched ahead occupy shared memory.
            self._iterator = None

    def __exit__(self, *exception: object) -> None:
        """Closes; does not suppress exceptions."""
        self.close()
