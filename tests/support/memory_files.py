"""A data source in memory, some of whose files are damaged."""

from support.image_files import encoded


class Memory:
    """Twelve files, label = index % 3; those in `bad` are cut off, those in `lost` are gone."""

    fingerprint = "memory"

    def __init__(self, bad: tuple[int, ...] = (), lost: tuple[int, ...] = ()) -> None:
        self.bad, self.lost = bad, lost

    def __len__(self) -> int:
        return 12

    def read(self, index: int) -> tuple[bytes, int]:
        if index in self.lost:
            raise OSError(f"file {index} is\ngone")
        content = encoded(index)
        return content[: len(content) // 2] if index in self.bad else content, index % 3

    def name(self, index: int) -> str:
        return f"file-{index}"
