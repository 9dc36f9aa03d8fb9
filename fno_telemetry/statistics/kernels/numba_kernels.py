"""The kernels compiled by numba: one reading of the memory for all sums."""

from importlib.metadata import version
from types import ModuleType

import numpy as np

from fno_telemetry.statistics.kernels.signatures import Array, Floats, Integers, RowSums
from fno_telemetry.statistics.kernels.torch_kernels import TorchKernels

_BINS = 1 << 16
_MOST_COUNTED = 1 << 31  # elements that no count of 32 bits overflows with


class NumbaKernels:
    """Compiled loops for float32 arrays of at least `least` elements; torch and NumPy for others.

    They are loaded for the first such array: loading takes a second, and compiling them once some more.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._others = TorchKernels()
        self._loaded: ModuleType | None = None

    @property
    def name(self) -> str:
        """What computes them, with its version."""
        return f"numba {version('numba')}"

    def sum_rows(self, rows: Array) -> RowSums:
        """Return extremes and sums of each row, and sums over all."""
        if (loops := self._loops(rows)) is None:
            return self._others.sum_rows(rows)
        low, high = np.empty((2, len(rows)), np.int32)
        total, squares, magnitudes = np.empty((3, len(rows)))
        loops.sum_rows(rows, low, high, total, squares, magnitudes)
        energy = float(np.add.reduce(squares))
        return RowSums(_values(low), _values(high), total, squares, magnitudes, energy)

    def count_bins(self, values: Array, shift: int, start: int) -> tuple[Integers, Integers]:
        """Return the filled bins and their counts."""
        loops = self._loops(values)
        if loops is None or values.size >= _MOST_COUNTED:
            return self._others.count_bins(values, shift, start)
        if shift >= 15:
            table = self._count_raw(loops, values, shift, start)
        else:
            table = np.zeros(_BINS, np.uint32)
            loops.count_ordered(values.view(np.int32), np.int32(shift), np.int32(start), table)
        bins, counts = np.empty((2, min(_BINS, values.size)), np.int64)
        filled = loops.take_filled(table, bins, counts)
        return bins[:filled].copy(), counts[:filled].copy()

    def count_patterns(self, patterns: Array) -> Integers:
        """Return how often each whole number occurs."""
        loops = self._load() if self._least <= patterns.size < _MOST_COUNTED else None
        if loops is None:
            return self._others.count_patterns(patterns)
        table = np.zeros(_BINS, np.uint32)
        loops.count_raw(patterns, patterns.dtype.type(0), table)
        return table.astype(np.int64)

    def count_signs(self, values: Array) -> tuple[int, int]:
        """Return the number of values below zero, and of zeros of either sign."""
        if (loops := self._loops(values)) is None:
            return self._others.count_signs(values)
        negative, zeros = loops.count_signs(values.view(np.uint32))
        return negative, zeros

    def mean_and_energies(self, samples: Array, keeps_mean: bool) -> tuple[Floats, float, float]:
        """Return the mean field, the energy around it and that of all."""
        if (loops := self._loops(samples)) is None:
            return self._others.mean_and_energies(samples, keeps_mean)
        mean = np.empty(samples.shape[1] if keeps_mean else 0, np.float64)
        around, energy = loops.mean_and_energies(samples, mean)
        return mean, around, energy

    def add_squares(self, coefficients: Array, grid: Floats) -> None:
        """Add the energies of coefficients over all fields."""
        loops = self._loops(coefficients.view(coefficients.real.dtype))
        (self._others if loops is None else loops).add_squares(coefficients, grid)

    def sum_operands(self, first: Array, second: Array, means: Floats) -> Floats:
        """Return the energies of two operands around their means."""
        if (loops := self._loops(first)) is None:
            return self._others.sum_operands(first, second, means)
        sums = np.empty(4)
        loops.sum_operands(first, second, means, sums)
        return sums

    def energy_of_change(self, before: Array, after: Array) -> float:
        """Return the energy of the difference."""
        if (loops := self._loops(before)) is None:
            return self._others.energy_of_change(before, after)
        energy: float = loops.energy_of_change(before.reshape(-1), after.reshape(-1))
        return energy

    def column_energies(self, rows: Array) -> Floats:
        """Return the sum of squares of each column."""
        if (loops := self._loops(rows)) is None:
            return self._others.column_energies(rows)
        energies = np.zeros(rows.shape[1])
        loops.column_energies(rows, energies)
        return energies

    def _count_raw(self, loops: ModuleType, values: Array, shift: int, start: int) -> Array:
        patterns = values.view(np.uint32)
        table = np.zeros((1 << (32 - shift)) + 32, np.uint32)
        # Zeros may be frequent where nothing is negative, as after a ReLU.
        count = loops.count_beside_zeros if start >= 0 else loops.count_raw
        count(patterns, np.uint32(shift), table)
        table = table[:-32]
        half = table.size // 2
        if table[half]:
            # The first negative bin holds -0.0, which belongs to the bin of zero.
            zeros = np.uint32(np.count_nonzero(patterns == np.uint32(1 << 31)))
            table[half] -= zeros
            table[0] += zeros
        ordered = np.concatenate((table[half:][::-1], table[:half]))
        return ordered[half + start : half + start + _BINS]

    def _loops(self, array: Array) -> ModuleType | None:
        """Return the compiled loops if they can measure this array."""
        if array.size < self._least or array.dtype != np.float32:
            return None
        return self._load()

    def _load(self) -> ModuleType:
        if self._loaded is None:
            import fno_telemetry.statistics.kernels.compiled_loops as compiled_loops

            self._loaded = compiled_loops
        return self._loaded


def _values(ordered: Array) -> Floats:
    """Return the float32 numbers of ordered patterns."""
    patterns = ordered ^ ((ordered >> 31) & np.int32(0x7FFFFFFF))
    with np.errstate(invalid="ignore"):
        values: Floats = patterns.view(np.float32).astype(np.float64)
    return values
