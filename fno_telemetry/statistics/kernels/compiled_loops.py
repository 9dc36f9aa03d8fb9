"""Loops over elements that numba compiles on first use and keeps on disk; this imports numba.

Integers replace floats wherever they may: the patterns of float32 numbers are in order, and extremes of
integers are computed several at a time. So are sums over a view of one row, but not over part of an array.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba
import numpy as np
from numba.core import caching

# Sums may be regrouped, so that several are computed at a time; NaN and infinities keep their meaning.
_MATH = {"reassoc", "contract", "nsz"}
_POSITIONS = 512  # whose float64 sums fit in the innermost cache

_NumbasCode: Any = caching.FunctionCache  # whose types are not known where numba is not installed


class _CodeOnDisk(_NumbasCode):  # type: ignore[misc]
    """The compiled code of a loop, kept on disk as long as that works.

    What cannot be read is compiled again, and what cannot be written is kept in memory alone; numba's own
    cache would let the loop fail.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code for these types of arguments; None if there is none that can be read."""
        try:
            return super().load_overload(sig, target_context)
        except OSError:
            return None
        except Exception:  # noqa: BLE001 - a damaged file may raise anything
            # As long as its index is damaged, no code can be saved.
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save code, if it can be saved."""
        with suppress(Exception):
            super().save_overload(sig, data)


def _compile(loop: Callable[..., Any]) -> Any:
    compiled: Any = numba.njit(nogil=True, fastmath=_MATH, error_model="numpy")(loop)
    # Unless there is no folder in which compiled functions could be kept.
    with suppress(OSError, RuntimeError):
        compiled._cache = _CodeOnDisk(loop)
    return compiled


@_compile
def sum_rows(rows: Any, low: Any, high: Any, total: Any, squares: Any, magnitudes: Any) -> None:
    """Write extremes (ordered patterns) and sums of float32 rows."""
    patterns = rows.view(np.int32)
    for row in range(rows.shape[0]):
        least, most = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
        sums = 0.0
        energy = 0.0
        absolute = 0.0
        for i in range(rows.shape[1]):
            x = np.float64(rows[row, i])
            sums += x
            energy += x * x
            absolute += abs(x)
        for i in range(rows.shape[1]):
            pattern = patterns[row, i]
            ordered = pattern ^ ((pattern >> np.int32(31)) & np.int32(0x7FFFFFFF))
            least, most = min(least, ordered), max(most, ordered)
        low[row], high[row], total[row], squares[row], magnitudes[row] = least, most, sums, energy, absolute


@_compile
def count_raw(patterns: Any, shift: Any, table: Any) -> None:
    """Add 1 to the place of each unsigned pattern, without its last bits, in a table (uint32)."""
    for i in range(patterns.size):
        table[patterns[i] >> shift] += np.uint32(1)


@_compile
def count_beside_zeros(patterns: Any, shift: Any, table: Any) -> None:
    """Do the same, faster where zeros are frequent: they take turns in 32 further places.

    A place that was written to just before is slow. In the end they are counted in the first place.
    """
    size = np.uint32(table.size - 32)
    for i in range(patterns.size):
        pattern = patterns[i]
        turn = size + np.uint32(i & 31)
        table[turn if pattern == np.uint32(0) else pattern >> shift] += np.uint32(1)
    for i in range(table.size - 32, table.size):
        table[0] += table[i]


@_compile
def count_ordered(patterns: Any, shift: Any, start: Any, table: Any) -> None:
    """Add 1 to the bin of each pattern (int32) in a table (uint32)."""
    for i in range(patterns.size):
        pattern = patterns[i]
        ordered = pattern ^ ((pattern >> np.int32(31)) & np.int32(0x7FFFFFFF))
        # The pattern of -0.0 counts as that of 0.0.
        ordered += np.int32(pattern == np.int32(-0x80000000))
        # Written to by another thread in the meantime, a value may lie anywhere.
        table[min(max((ordered >> shift) - start, 0), table.size - 1)] += np.uint32(1)


@_compile
def take_filled(table: Any, bins: Any, counts: Any) -> Any:
    """Write the places and counts of a table that are not 0; return their number."""
    number = 0
    for i in range(table.size):
        if table[i]:
            bins[number], counts[number] = i, table[i]
            number += 1
    return number


@_compile
def count_signs(patterns: Any) -> Any:
    """Return how many patterns (uint32) are of values below zero, and how many of zero of either sign."""
    negative = 0
    zeros = 0
    for i in range(patterns.size):
        negative += patterns[i] > np.uint32(0x80000000)
        zeros += (patterns[i] & np.uint32(0x7FFFFFFF)) == np.uint32(0)
    return negative, zeros


@_compile
def mean_and_energies(rows: Any, mean: Any) -> Any:
    """Write the mean over the first axis of float32 rows, unless `mean` is empty.

    Return the energy around it and that of all.
    """
    number, positions = rows.shape
    sums = np.empty(_POSITIONS, np.float64)
    around = 0.0
    of_mean = 0.0
    for start in range(0, positions, _POSITIONS):
        width = min(_POSITIONS, positions - start)
        for j in range(width):
            sums[j] = 0.0
        for row in range(number):
            part = rows[row, start : start + width]
            for j in range(width):
                sums[j] += np.float64(part[j])
        for j in range(width):
            sums[j] /= number
            of_mean += sums[j] * sums[j]
        if mean.size:
            for j in range(width):
                mean[start + j] = sums[j]
        for row in range(number):
            part = rows[row, start : start + width]
            for j in range(width):
                rest = np.float64(part[j]) - sums[j]
                around += rest * rest
    return around, around + number * of_mean


@_compile
def add_squares(coefficients: Any, grid: Any) -> None:
    """Add |z|^2 of each column of complex64 rows to its place in the grid."""
    for row in range(coefficients.shape[0]):
        values = coefficients[row]
        for j in range(values.size):
            z = values[j]
            grid[j] += np.float64(z.real * z.real + z.imag * z.imag)


@_compile
def sum_operands(first: Any, second: Any, means: Any, sums: Any) -> None:
    """Write energies of float32 rows around their means: of each, of their sum, and the sum of products."""
    one, other, both, product = 0.0, 0.0, 0.0, 0.0
    for row in range(first.shape[0]):
        left, right = first[row], second[row]
        left_mean, right_mean = means[0, row], means[1, row]
        for i in range(left.size):
            s, t = np.float64(left[i]) - left_mean, np.float64(right[i]) - right_mean
            one += s * s
            other += t * t
            both += (s + t) * (s + t)
            product += s * t
    sums[0], sums[1], sums[2], sums[3] = one, other, both, product


@_compile
def energy_of_change(before: Any, after: Any) -> Any:
    """Return the sum of squared differences."""
    energy = 0.0
    for i in range(before.size):
        change = np.float64(after[i]) - np.float64(before[i])
        energy += change * change
    return energy


@_compile
def column_energies(rows: Any, energies: Any) -> None:
    """Add the square of each float32 number to the place of its column."""
    for row in range(rows.shape[0]):
        values = rows[row]
        for j in range(values.size):
            x = np.float64(values[j])
            energies[j] += x * x
