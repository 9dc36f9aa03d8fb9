"""Values of half precision in host memory, and the kernels for them: widened to float32 block by block."""

from collections.abc import Iterator
from typing import Self

import numpy as np
import torch

from fno_telemetry.statistics.kernels.blocks import cut_rows
from fno_telemetry.statistics.kernels.signatures import Array, Floats, Integers, Kernels, RowSums
from fno_telemetry.statistics.kernels.torch_kernels import order_patterns

_BLOCK = 1 << 18  # elements of which a float32 copy fits in the cache


class NarrowValues:
    """The values of a contiguous tensor of float16, bfloat16 or less, which NumPy cannot read as they are."""

    def __init__(self, tensor: torch.Tensor, patterns: Array) -> None:
        """Take the tensor, and its memory as unsigned whole numbers of as many bits."""
        self.shape = tuple(tensor.shape)
        self.size = tensor.numel()
        self.patterns = patterns
        self._tensor = tensor

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: int) -> Self:
        """Return the same values with another shape."""
        return type(self)(self._tensor.view(*shape), self.patterns.reshape(*shape))

    def astype(self, dtype: type[np.float64]) -> Floats:
        """Return a copy of few values in float64."""
        wide: Floats = self._tensor.to(torch.float64).numpy()
        return wide

    def order(self, patterns: Integers) -> Integers:
        """Return the ordered float32 patterns of values with these patterns."""
        narrow = patterns.astype(self.patterns.dtype)
        values = torch.from_numpy(narrow).view(self._tensor.dtype).to(torch.float32)
        return order_patterns(values.view(torch.int32).numpy()).astype(np.int64)

    def widen(self, part: tuple[slice, slice], buffer: torch.Tensor) -> Array:
        """Return a part of the rows in float32, in the memory of the buffer."""
        block = self._tensor[part]
        wide: Array = buffer[: block.numel()].view(block.shape).copy_(block).numpy()
        return wide


Values = Array | NarrowValues
"""What kernels read: an array, or values that are widened."""


class WideningKernels:
    """Kernels that also take `NarrowValues`, of which they give each block to the kernels for float32."""

    def __init__(self, own: Kernels) -> None:
        self.own = own

    @property
    def name(self) -> str:
        """What computes them, with its version."""
        return self.own.name

    def sum_rows(self, rows: Values) -> RowSums:
        """Return extremes and sums of each row, and sums over all."""
        if not isinstance(rows, NarrowValues):
            return self.own.sum_rows(rows)
        low, high = np.full(len(rows), np.inf), np.full(len(rows), -np.inf)
        total, squares, magnitudes = np.zeros((3, len(rows)))
        energy = 0.0
        for part, (block,) in _widened(rows):
            found = self.own.sum_rows(block)
            own = part[0]
            np.minimum(low[own], found.low, out=low[own])
            np.maximum(high[own], found.high, out=high[own])
            with np.errstate(all="ignore"):
                total[own] += found.total
                squares[own] += found.squares
                magnitudes[own] += found.magnitudes
            energy += found.energy
        return RowSums(low, high, total, squares, magnitudes, energy)

    def count_bins(self, values: Values, shift: int, start: int) -> tuple[Integers, Integers]:
        """Return the filled bins and their counts."""
        if not isinstance(values, NarrowValues):
            return self.own.count_bins(values, shift, start)
        counts = self.own.count_patterns(values.patterns.reshape(-1))
        patterns = np.flatnonzero(counts != 0)
        bins = (values.order(patterns) >> shift) - start
        # Exact: float64 holds all integers up to 2^53.
        table = np.bincount(bins, counts[patterns])
        filled = np.flatnonzero(table != 0)
        return filled, table[filled].astype(np.int64)

    def count_signs(self, values: Values) -> tuple[int, int]:
        """Return the number of values below zero, and of zeros of either sign."""
        if not isinstance(values, NarrowValues):
            return self.own.count_signs(values)
        counts = [self.own.count_signs(block.reshape(-1)) for _, (block,) in _widened(values.reshape(1, -1))]
        return sum(negative for negative, _ in counts), sum(zeros for _, zeros in counts)

    def mean_and_energies(self, samples: Values, keeps_mean: bool) -> tuple[Floats, float, float]:
        """Return the mean field, the energy around it and that of all."""
        if not isinstance(samples, NarrowValues):
            return self.own.mean_and_energies(samples, keeps_mean)
        number, positions = samples.shape
        width = min(max(_BLOCK // number, 64), positions)
        parts = [(slice(None), slice(at, at + width)) for at in range(0, positions, width)]
        found = [
            self.own.mean_and_energies(block, keeps_mean)
            for _, (block,) in _widened(samples, parts=parts, elements=number * width)
        ]
        mean = np.concatenate([one[0] for one in found])
        return mean, sum(one[1] for one in found), sum(one[2] for one in found)

    def add_squares(self, coefficients: Array, grid: Floats) -> None:
        """Add the energies of coefficients over all fields."""
        self.own.add_squares(coefficients, grid)

    def sum_operands(self, first: Values, second: Values, means: Floats) -> Floats:
        """Return the energies of two operands around their means."""
        if not isinstance(first, NarrowValues) and not isinstance(second, NarrowValues):
            return self.own.sum_operands(first, second, means)
        sums = np.zeros(4)
        for part, (one, other) in _widened(first, second):
            sums += self.own.sum_operands(one, other, np.ascontiguousarray(means[:, part[0]]))
        return sums

    def energy_of_change(self, before: Values, after: Values) -> float:
        """Return the energy of the difference."""
        if not isinstance(before, NarrowValues) and not isinstance(after, NarrowValues):
            return self.own.energy_of_change(before, after)
        return sum(self.own.energy_of_change(one, other) for _, (one, other) in _widened(before, after))

    def column_energies(self, rows: Array) -> Floats:
        """Return the sum of squares of each column."""
        return self.own.column_energies(rows)


_Part = tuple[slice, slice]


def _widened(
    *sides: Values, parts: list[_Part] | None = None, elements: int = _BLOCK
) -> Iterator[tuple[_Part, list[Array]]]:
    """Yield slices of rows and columns, and the values of each side there, in memory that is used again."""
    buffers = [torch.empty(min(elements, side.size), dtype=torch.float32, device="cpu") for side in sides]
    for part in cut_rows(sides[0].shape, _BLOCK) if parts is None else parts:
        yield (
            part,
            [
                side.widen(part, buffer)
                if isinstance(side, NarrowValues)
                else np.ascontiguousarray(side[part])
                for side, buffer in zip(sides, buffers, strict=True)
            ],
        )
