"""Objects that must be closed: threads, files, worker processes."""

import abc
from typing import Self


class Closing(abc.ABC):
    """Has a `close` that leaving a `with` block calls, whether the block ended well or not."""

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of everything; the object cannot be used afterwards."""

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes; an exception of the block goes on."""
        self.close()
