"""The loops over all elements of a tensor that statistics need, as one set of functions."""

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class RowSums(NamedTuple):
    """Sums over rows of values; a NaN or infinite value makes `low` or `high` of its row non-finite."""

    low: Floats  # (rows,)
    high: Floats
    total: Floats
    squares: Floats
    magnitudes: Floats  # sums of |x|
    energy: float  # the sum of `squares`

    def take(self, rows: Integers) -> "RowSums":
        """Return those of some of the rows."""
        low, high, total, squares, magnitudes = (one[rows] for one in self[:5])
        return RowSums(low, high, total, squares, magnitudes, float(squares.sum()))


class Kernels(Protocol):
    """Functions of contiguous arrays of float32 or float64 in host memory; none changes its arguments.

    Sums are kept in float64: right to 1e-12 of the sum of the magnitudes that are added.
    """

    @property
    def name(self) -> str:
        """What computes them, with its version."""
        ...

    def sum_rows(self, rows: Array) -> RowSums:
        """Return the sums over each row of an array with at least one element, (rows, values)."""
        ...

    def count_bins(self, values: Array, shift: int, start: int) -> tuple[Integers, Integers]:
        """Return the bins that hold finite float32 `values`, in ascending order, and how many each holds.

        A bin is the ordered pattern of a value (see `statistics.sketch`) `>> shift`, minus `start`; every
        value has one in [0, 2^16).
        """
        ...

    def count_patterns(self, patterns: Array) -> Integers:
        """Return how often each whole number occurs in an array of uint8 or uint16, (2^16,)."""
        ...

    def count_signs(self, values: Array) -> tuple[int, int]:
        """Return the number of values below zero, and of those equal to zero."""
        ...

    def mean_and_energies(self, samples: Array, keeps_mean: bool) -> tuple[Floats, float, float]:
        """Return the mean over the first axis of (samples, positions), the energy around it, and that of all.

        Without `keeps_mean` it is empty.
        """
        ...

    def add_squares(self, coefficients: Array, grid: Floats) -> None:
        """Add |z|^2 of complex (fields, coefficients), summed over fields, to `grid`.

        Squares have the precision of the coefficients. It may overwrite these, as the only exception.
        """
        ...

    def sum_operands(self, first: Array, second: Array, means: Floats) -> Floats:
        """Return four energies of two arrays (rows, values), each row without its mean in `means`, (2, rows).

        They are those of the first, of the second and of their sum, and the sum of products.
        """
        ...

    def energy_of_change(self, before: Array, after: Array) -> float:
        """Return the sum of (after - before)^2 of two arrays (rows, values), however small a change is."""
        ...

    def column_energies(self, rows: Array) -> Floats:
        """Return the sum of squares of each column of float32 rows, (columns,), to six digits.

        Columns with at most 1e-12 of the largest sum may be less exact.
        """
        ...
