"""The kernels with torch and NumPy alone: float64 copies of blocks, each small enough for the cache."""

import numpy as np
import numpy.typing as npt
import torch

from fno_telemetry.statistics.kernels.blocks import AT_A_TIME, cut_rows
from fno_telemetry.statistics.kernels.signatures import Array, Floats, Integers, RowSums

SMALL = 1 << 14
"""Up to so many elements float64 copies cost less than the further steps that they save."""

_COUNTED_AT_A_TIME = 1 << 17
_SORTED = 1 << 12  # counting fewer values by sorting them is faster than by a table
_BINS = 1 << 16
_SUMMED = 128  # numbers of which float32 adds up the squares one by one to six digits
_LEAST, _MOST = 1e-20, 1e30  # between them float32 loses no square that matters, 1e-12 of the largest sum
_SIGN, _MAGNITUDE = 0x80000000, 0x7FFFFFFF


class TorchKernels:
    """Loops in blocks that fit in the cache, each block by a few functions of torch or NumPy."""

    @property
    def name(self) -> str:
        """What computes them, with its version."""
        return f"torch {torch.__version__.partition('+')[0]}"

    def sum_rows(self, rows: Array) -> RowSums:
        """Return extremes and sums of each row, and sums over all."""
        if rows.size <= SMALL:
            return _sum_few(rows)
        tensor = torch.from_numpy(rows)
        low, high = (ends.to(torch.float64).numpy() for ends in (tensor.amin(1), tensor.amax(1)))
        one_sided = low.min() >= 0 or high.max() <= 0
        total, squares, magnitudes = np.zeros((3, len(rows)))
        with np.errstate(all="ignore"):
            for part in cut_rows(rows.shape):
                wide = rows[part].astype(np.float64)
                total[part[0]] += np.add.reduce(wide, 1)
                squares[part[0]] += np.einsum("ij,ij->i", wide, wide)
                if not one_sided:
                    magnitudes[part[0]] += np.add.reduce(np.abs(wide, out=wide), 1)
            if one_sided:
                magnitudes = np.abs(total)
            energy = float(np.add.reduce(squares))
        return RowSums(low, high, total, squares, magnitudes, energy)

    def count_bins(self, values: Array, shift: int, start: int) -> tuple[Integers, Integers]:
        """Return the filled bins and their counts."""
        patterns = values.view(np.int32)
        if values.size <= _SORTED:
            return _count_sorted((order_patterns(patterns) >> shift) - start)
        table = _count_raw(patterns, shift, start) if shift >= 15 else _count_ordered(patterns, shift, start)
        filled = np.flatnonzero(table != 0)
        return filled, table[filled]

    def count_patterns(self, patterns: Array) -> Integers:
        """Return how often each whole number occurs."""
        table = np.zeros(_BINS, np.int64)
        keys = np.empty(min(_COUNTED_AT_A_TIME, patterns.size), np.int64)
        for at in range(0, patterns.size, _COUNTED_AT_A_TIME):
            block = patterns[at : at + _COUNTED_AT_A_TIME]
            keys[: block.size] = block
            table += np.bincount(keys[: block.size], minlength=_BINS)
        return table

    def count_signs(self, values: Array) -> tuple[int, int]:
        """Return the number of values below zero, and of zeros of either sign."""
        return _count_where(np.less, values), _count_where(np.equal, values)

    def mean_and_energies(self, samples: Array, keeps_mean: bool) -> tuple[Floats, float, float]:
        """Return the mean field, the energy around it and that of all."""
        number, positions = samples.shape
        width = max(2 * AT_A_TIME // number, 64)
        mean = np.empty(positions if keeps_mean else 0, np.float64)
        around = energy = 0.0
        for at in range(0, positions, width):
            wide = samples[:, at : at + width].astype(np.float64)
            near = np.add.reduce(wide, 0) / number
            energy += number * float(near.dot(near))
            if keeps_mean:
                mean[at : at + width] = near
            if number == 1:
                continue
            wide -= near
            rest = wide.reshape(-1)
            around += float(rest.dot(rest))
        return mean, around, energy + around

    def add_squares(self, coefficients: Array, grid: Floats) -> None:
        """Add the energies of coefficients over all fields; overwrites `coefficients`."""
        if coefficients.size <= SMALL:
            parts = coefficients.view(coefficients.real.dtype)
            grid += np.einsum("ij,ij->j", parts, parts).reshape(-1, 2).sum(1, dtype=np.float64)
        else:
            squares = torch.view_as_real(torch.from_numpy(coefficients)).square_()
            grid += squares.sum(0).sum(-1).numpy()

    def sum_operands(self, first: Array, second: Array, means: Floats) -> Floats:
        """Return the energies of two operands around their means."""
        sums = np.zeros(4)
        for part in cut_rows(first.shape):
            s_mean, t_mean = means[:, part[0], None]
            s, t = (first[part] - s_mean).reshape(-1), (second[part] - t_mean).reshape(-1)
            both = s + t
            sums += s.dot(s), t.dot(t), both.dot(both), s.dot(t)
        return sums

    def energy_of_change(self, before: Array, after: Array) -> float:
        """Return the energy of the difference."""
        energy = 0.0
        for part in cut_rows(before.shape):
            change = np.subtract(after[part], before[part], dtype=np.float64).reshape(-1)
            energy += float(change.dot(change))
        return energy

    def column_energies(self, rows: Array) -> Floats:
        """Return the sum of squares of each column."""
        energies = np.zeros(rows.shape[1])
        with np.errstate(all="ignore"):
            for at in range(0, len(rows), _SUMMED):
                narrow = rows[at : at + _SUMMED]
                energies += np.einsum("ij,ij->j", narrow, narrow)
        if not _LEAST < energies.max() < _MOST:
            energies[:] = 0
            for part in cut_rows(rows.shape):
                wide = rows[part].astype(np.float64)
                energies[part[1]] += np.einsum("ij,ij->j", wide, wide)
        return energies


def order_patterns(patterns: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Map patterns of float32 numbers to integers in the order of the values; both zeros become 0."""
    ordered: npt.NDArray[np.int32] = patterns ^ ((patterns >> 31) & np.int32(_MAGNITUDE))
    # The pattern of -0.0.
    ordered += patterns == np.int32(-(2**31))
    return ordered


def _sum_few(rows: Array) -> RowSums:
    # NumPy warns of what is not finite, also where it is copied.
    with np.errstate(all="ignore"):
        wide = rows.astype(np.float64)
        squares = np.einsum("ij,ij->i", wide, wide)
        return RowSums(
            np.minimum.reduce(wide, 1),
            np.maximum.reduce(wide, 1),
            np.add.reduce(wide, 1),
            squares,
            np.add.reduce(np.abs(wide), 1),
            float(np.add.reduce(squares)),
        )


def _count_where(is_so: np.ufunc, values: Array) -> int:
    """Return for how many values the comparison with zero is true, in blocks with one buffer."""
    found = np.empty(min(_COUNTED_AT_A_TIME, values.size), np.bool_)
    number = 0
    for at in range(0, values.size, _COUNTED_AT_A_TIME):
        block = values[at : at + _COUNTED_AT_A_TIME]
        number += int(np.count_nonzero(is_so(block, 0, out=found[: block.size])))
    return number


def _count_sorted(keys: npt.NDArray[np.int32]) -> tuple[Integers, Integers]:
    keys.sort()
    ends = np.empty(keys.size, np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=ends[:-1])
    ends[-1] = True
    last = ends.nonzero()[0]
    counts = last + 1
    counts[1:] -= counts[:-1].copy()
    return keys[last].astype(np.int64), counts


def _count_raw(patterns: npt.NDArray[np.int32], shift: int, start: int) -> Integers:
    """Count unordered patterns, and put the bins in order afterwards: one step less for every element."""
    unsigned = patterns.view(np.uint32)
    size = 1 << (32 - shift)
    table = np.zeros(size, np.int64)
    keys = np.empty(min(_COUNTED_AT_A_TIME, unsigned.size), np.int64)
    for at in range(0, unsigned.size, _COUNTED_AT_A_TIME):
        block = unsigned[at : at + _COUNTED_AT_A_TIME]
        key = np.right_shift(block, np.uint32(shift), out=keys[: block.size], casting="unsafe")
        table += np.bincount(key, minlength=size)
    half = size // 2
    if table[half]:
        # The first negative bin holds -0.0, which belongs to the bin of zero.
        zeros = int(np.count_nonzero(unsigned == np.uint32(_SIGN)))
        table[half] -= zeros
        table[0] += zeros
    ordered = np.concatenate((table[half:][::-1], table[:half]))
    return ordered[half + start : half + start + _BINS]


def _count_ordered(patterns: npt.NDArray[np.int32], shift: int, start: int) -> Integers:
    table = np.zeros(_BINS, np.int64)
    for at in range(0, patterns.size, _COUNTED_AT_A_TIME):
        keys = (order_patterns(patterns[at : at + _COUNTED_AT_A_TIME]) >> shift) - start
        table += np.bincount(keys, minlength=_BINS)
    return table
