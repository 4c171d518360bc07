"""Sums over the processes of a run, in blocks: bytes and memory do not grow with the processes.

Floats are summed as 64-bit integers, in a unit that all processes agree on: devices may lack 64-bit
floats (TPUs round them), and sums of integers have the same bits in any order. With 2^e above all
|x| of all P processes and c = ceil(log2 P), the unit is

    u = 2^(e - 62 + c),        sum |x| / u < P 2^(62 - c) <= 2^62,                            (1)

so that nothing overflows. Each x is rounded by at most u/2, so the sum of P numbers of that size by
2^(c - 62) of itself: less than float64's own 2^-53 for up to 512 processes.
"""

from typing import Protocol

import numpy as np

from rae_dit.multihost.blocks import padded

BLOCK = 2**20  # numbers in one collective: 8 MiB


class Together(Protocol):
    """Sums and gathers over processes; every process makes the same calls in the same order."""

    @property
    def is_first(self) -> bool:
        """Whether this is process 0."""
        ...

    def largest(self, number: int) -> int:
        """Returns the largest of the processes' numbers."""
        ...

    def sum_integers(self, values: np.ndarray) -> np.ndarray:
        """Returns the sum of the processes' int64 arrays of one shape."""
        ...

    def sum_floats(self, values: np.ndarray) -> np.ndarray:
        """Returns the sum of the processes' float64 arrays of one shape.

        Where one is not finite, the sum is what floats give: NaN or an infinity.
        """
        ...

    def gather_rows(self, rows: np.ndarray) -> np.ndarray:
        """Returns the float32 rows [n, d] of all processes, in order, on process 0.

        n may differ and be zero, d not. On other processes there are no rows.
        """
        ...


class SumOverDevices:
    """`Together` by the devices of all processes."""

    def __init__(self) -> None:
        """Lays out all devices by process."""
        import jax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        self.count = jax.process_count()
        self.index = jax.process_index()
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
        mesh = Mesh(np.array(devices).reshape(self.count, -1), ("process", "device"))
        self._one_each = NamedSharding(mesh, PartitionSpec("process"))
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._add = jax.jit(
            lambda parts: parts.sum(axis=0, dtype=parts.dtype), out_shardings=everywhere
        )

    @property
    def is_first(self) -> bool:
        """See `Together`."""
        return self.index == 0

    def largest(self, number: int) -> int:
        """See `Together`."""
        return int(self._counts(number).max())

    def sum_integers(self, values: np.ndarray) -> np.ndarray:
        """See `Together`."""
        flat = np.ascontiguousarray(values, np.int64).reshape(-1)
        blocks = [
            self._sum_block(flat[start : start + BLOCK]) for start in range(0, len(flat), BLOCK)
        ]
        return np.concatenate([np.zeros(0, np.int64), *blocks]).reshape(np.shape(values))

    def sum_floats(self, values: np.ndarray) -> np.ndarray:
        """See `Together`."""
        values = np.asarray(values, np.float64)
        finite = np.isfinite(values)
        _, exponents = np.frexp(np.where(finite, values, 0.0))
        zero, odd = -5000, 5000  # below and above all exponents
        own = int(exponents[finite & (values != 0)].max(initial=zero))
        top = self.largest(own if finite.all() else odd)
        if top == odd:
            whole = self.sum_floats(np.where(finite, values, 0.0))
            return whole + self._sum_odd(np.where(finite, 0.0, values))
        if top == zero:
            return np.zeros(values.shape)
        unit = top - 62 + (self.count - 1).bit_length()
        whole = np.rint(np.ldexp(values, -unit)).astype(np.int64)
        return np.ldexp(self.sum_integers(whole).astype(np.float64), unit)

    def gather_rows(self, rows: np.ndarray) -> np.ndarray:
        """See `Together`."""
        width = rows.shape[1]
        ends = np.cumsum(self._counts(len(rows)))
        first = int(ends[self.index]) - len(rows)
        found = np.zeros((int(ends[-1]) if self.is_first else 0, width), np.float32)
        bits = np.ascontiguousarray(rows, np.float32).view(np.int32)
        size = max(1, BLOCK // max(1, width))
        for start in range(0, int(ends[-1]), size):
            # Every row is zero on all processes but one.
            block = np.zeros((min(size, int(ends[-1]) - start), width), np.int32)
            low, high = (min(max(i - first, 0), len(rows)) for i in (start, start + size))
            block[low + first - start : high + first - start] = bits[low:high]
            whole = self._sum_block(block.reshape(-1)).reshape(block.shape)
            if self.is_first:
                found[start : start + size] = whole.view(np.float32)
        return found

    def _sum_odd(self, values: np.ndarray) -> np.ndarray:
        """Sums numbers that are 0 or not finite."""
        found = np.zeros(values.shape)
        for number, kind in ((np.nan, np.isnan), (np.inf, np.isposinf), (-np.inf, np.isneginf)):
            count = self.sum_integers(kind(values).astype(np.int64))
            with np.errstate(invalid="ignore"):  # inf - inf
                found[count > 0] += number
        return found

    def _counts(self, number: int) -> np.ndarray:
        """Returns the numbers of all processes, int64 [processes]."""
        own = np.zeros(self.count, np.int64)
        own[self.index] = number
        return self._sum_block(own)

    def _sum_block(self, values: np.ndarray) -> np.ndarray:
        import jax

        with jax.enable_x64(True):  # for these arrays alone
            own = padded(values)[None]
            parts = jax.make_array_from_process_local_data(self._one_each, own)
            return np.asarray(self._add(parts).addressable_data(0))[: len(values)]
