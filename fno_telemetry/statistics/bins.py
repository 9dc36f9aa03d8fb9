"""The bins of a sketch on the host, from which order statistics are read."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fno_telemetry.statistics.sketch import MAGNITUDE_BITS, ROUNDING, Sketch

_SMALLEST_NORMAL = 2.0**-126


@dataclass(frozen=True)
class Bins:
    """The non-empty bins of a sketch in ascending order; zeros have a bin of their own.

    `lower` and `upper` are the smallest and largest value that a bin can hold (float64); `counts` is int64.
    """

    lower: npt.NDArray[np.float64]
    upper: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    below: int
    above: int
    rounded: bool = False

    @cached_property
    def cumulative(self) -> npt.NDArray[np.int64]:
        """The number of elements up to the end of each bin, without those in `below`."""
        return np.cumsum(self.counts)

    @cached_property
    def middle(self) -> npt.NDArray[np.float64]:
        """The value that represents each bin."""
        return (self.lower + self.upper) / 2

    @property
    def relative_error(self) -> float:
        """The largest relative distance of a magnitude from its bin's middle, if normal in float32.

        For bins of magnitudes only.
        """
        normal = slice(int(self.lower.searchsorted(_SMALLEST_NORMAL)), None)
        lower = self.lower[normal]
        widest = float(((self.upper[normal] - lower) / lower).max()) / 2 if lower.size else 0.0
        return widest + (ROUNDING if self.rounded else 0.0)

    @property
    def underflow(self) -> int:
        """The number of nonzero magnitudes that are subnormal in float32; for bins of magnitudes only."""
        zeros = int(self.upper.searchsorted(0.0, "right"))
        normal = int(self.upper.searchsorted(_SMALLEST_NORMAL))
        return int(self.counts[zeros:normal].sum())

    def magnitudes(self) -> "Bins":
        """Return the bins of |x|: negative bins are mirrored and merged in order."""
        lower = np.where(self.upper < 0, -self.upper, self.lower)
        upper = np.where(self.upper < 0, -self.lower, self.upper)
        order = np.lexsort((upper, lower))
        return Bins(lower[order], upper[order], self.counts[order], 0, self.above + self.below, self.rounded)

    def quantiles(self, *thousandths: int) -> list[float | None]:
        """Return the values of rank ceil(n * part / 1000), as NumPy's inverted_cdf does.

        None without elements, or if that element is outside the range of float32.
        """
        places = self.find(*thousandths)
        return [float(self.middle[at]) if 0 <= at < self.counts.size else None for at in places]

    def find(self, *thousandths: int) -> list[int]:
        """Return the indices of the bins with the elements of these ranks, in thousandths of all elements.

        -1 for an element below the range of float32, the number of bins for one above.
        """
        counted = int(self.cumulative[-1]) if self.counts.size else 0
        total = counted + self.below + self.above
        ranks = [max(-(-total * part // 1000), 1) - self.below for part in thousandths]
        places = self.cumulative.searchsorted(ranks).tolist()
        return [at if rank > 0 else -1 for at, rank in zip(places, ranks, strict=True)]


def bins(sketch: Sketch, zero_count: int) -> Bins:
    """Return the non-empty bins of a sketch on the host, with `zero_count` exact zeros in their own bin."""
    shift, start, low, high, below, above = sketch.frame.tolist()
    filled, taken = sketch.on_host()
    first = (filled + start) << shift
    last = first + (1 << shift) - 1
    # Spare bits are 0 in every value, and so 1 in the ordered pattern of a negative value.
    slack = (1 << min(max(sketch.spare, 0), shift)) - 1
    lowest = np.where(first < 0, first + slack, first)
    # The ordered pattern -1 belongs to -0.0, which is counted as 0.0.
    highest = np.where(first < 0, np.minimum(last, -2), last - slack)
    home = np.flatnonzero(first == 0)
    if home.size:
        # The bin of zero also holds the smallest positive subnormals, which get a bin of their own.
        at = int(home[0])
        zeros = min(zero_count, int(taken[at]))
        split = [(0, 0, zeros), (1, max(highest[at], 1), int(taken[at]) - zeros)]
        rows = np.array([row for row in split if row[2]]).T
        lowest, highest, taken = (
            np.concatenate((column[:at], row, column[at + 1 :]))
            for column, row in zip((lowest, highest, taken), rows, strict=True)
        )
    # The extremes are exact, so the outer bins end there.
    lower = _decode(np.maximum(lowest, low))
    upper = _decode(np.minimum(highest, high))
    return Bins(lower, upper, taken, below, above, sketch.spare < 0)


def _decode(ordered: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    narrow = ordered.astype(np.int32)
    patterns = narrow ^ ((narrow >> 31) & np.int32(MAGNITUDE_BITS))
    return patterns.view(np.float32).astype(np.float64)
