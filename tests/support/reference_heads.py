"""The reference's discriminator heads: torch's names of our parameters, and a reader."""

from pathlib import Path

from rae_dit.models.discriminator import Heads
from rae_dit.weights.mapping import (
    SAME,
    Entry,
    Layout,
    build,
    import_tensors,
    in_blocks,
    layer_norm,
    parameters_of,
)
from rae_dit.weights.tensor_file import open_tensors


def heads_entries(count: int, kernel_size: int) -> list[Entry]:
    """Names inside the reference's ModuleList of heads, u and v of spectral norms included."""

    def spectral(path: str, key: str, size: int) -> list[Entry]:
        kernel = Layout(lambda x: x.transpose(2, 1, 0), lambda x: x.transpose(2, 1, 0))
        flat = Layout(lambda x: x.reshape(-1, size).T, lambda x: x.T.reshape(-1))
        return [
            Entry(f"{path}.kernel", (f"{key}.weight_orig",), kernel),
            Entry(f"{path}.bias", (f"{key}.bias",)),
            Entry(f"{path}.u", (f"{key}.weight_u",), SAME),
            Entry(f"{path}.v", (f"{key}.weight_v",), flat),
        ]

    head = [
        *spectral("enter", "0.0", 1),
        *layer_norm("enter_norm", "0.1"),
        *spectral("mix", "1.fn.0", kernel_size),
        *layer_norm("mix_norm", "1.fn.1"),
        *spectral("judge", "2", 1),
    ]
    return in_blocks("heads", "{}", range(count), head)


def read_heads(path: Path, abstract: Heads, *, kernel_size: int) -> Heads:
    """Fills abstract heads with the tensors of a file."""
    entries = heads_entries(abstract.count, kernel_size)
    wanted = parameters_of(abstract)
    return build(
        abstract, import_tensors(entries, open_tensors(path), wanted, what=str(path), fixed={})
    )
