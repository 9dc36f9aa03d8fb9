"""Histograms from a sketch, with the same bins in the report and in every dashboard."""

import numpy as np
import numpy.typing as npt

from fno_telemetry.records import Histogram, LogHistogram
from fno_telemetry.statistics.bins import Bins

MOST_BINS = 64

LOG_EDGES = tuple(-8 + index / 4 for index in range(MOST_BINS + 1))
"""Edges over log10 |x|, a quarter of a decade apart, the same in every record."""


_LOG_VALUES = 10.0 ** np.array(LOG_EDGES)
_LARGEST = float(np.finfo(np.float32).max)


def make_linear(bins: Bins) -> Histogram | None:
    """Return at most 64 bins between the 0.1 % and the 99.9 % quantile, and the counts below and above.

    The edges are evenly spaced, but an edge inside a bin of the sketch moves up to the end of that bin, so
    float32 values are counted exactly. None if no element is in the range of float32.
    """
    if not bins.counts.size:
        return None
    first, last = bins.find(1, 999)
    first, last = max(first, 0), min(last, bins.counts.size - 1)
    lower, upper = bins.lower[first : last + 1], bins.upper[first : last + 1]
    end = float(_next(upper[-1]))
    targets = np.linspace(lower[0], end, MOST_BINS + 1)[1:-1]
    # Edges are float32 numbers, so every value of the tensor is counted on its side of the edge.
    targets = np.minimum(targets, _LARGEST).astype(np.float32).astype(np.float64)
    # A target inside a bin of the sketch moves up to the end of that bin.
    at = np.searchsorted(lower, targets, side="left")
    ends = _next(upper[np.maximum(at - 1, 0)])
    edges = np.unique(np.concatenate(([lower[0]], np.where(targets < ends, ends, targets), [end])))
    cumulative = np.concatenate(([0], np.cumsum(bins.counts[first : last + 1])))
    counts = np.diff(cumulative[np.searchsorted(lower, edges, side="left")])
    return Histogram(
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        below=bins.below + int(bins.cumulative[first]) - int(bins.counts[first]),
        above=bins.above + int(bins.cumulative[-1] - bins.cumulative[last]),
    )


def make_logarithmic(magnitudes: Bins) -> LogHistogram | None:
    """Return the counts over log10 |x| on `LOG_EDGES`; None without elements.

    A bin of the sketch is counted at its middle.
    """
    first = int(np.searchsorted(magnitudes.upper, 0, side="right"))
    if not magnitudes.counts.size and not magnitudes.above:
        return None
    cumulative = np.concatenate(([0], magnitudes.cumulative))
    zeros, total = int(cumulative[first]), int(cumulative[-1])
    # Bins are in ascending order, and so are their middles.
    below = cumulative[np.maximum(np.searchsorted(magnitudes.middle, _LOG_VALUES), first)]
    return LogHistogram(
        edges=LOG_EDGES,
        counts=tuple(np.diff(below).tolist()),
        below=int(below[0]) - zeros,
        above=total - int(below[-1]) + magnitudes.above,
        zeros=zeros,
    )


def _next(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the next larger float32 of each value; 2^128 after the largest one."""
    following = np.nextafter(np.minimum(values, _LARGEST).astype(np.float32), np.float32(_LARGEST))
    return np.where(values < _LARGEST, following.astype(np.float64), 2.0**128)
