"""Distances between distributions, read off records: of values, of signs, of energy over frequency."""

import math

import numpy as np
import numpy.typing as npt

from fno_telemetry.records import LogHistogram, Spectrum

_SMALLEST_SHARE = 1e-4
"""Shares below this count as this in the PSI, so that an empty bin costs much but not infinitely much."""


def wasserstein_decades(a: LogHistogram | None, b: LogHistogram | None) -> float | None:
    """Return the Wasserstein-1 distance between two distributions of log10 |x|, in decades.

    It is the area between the cumulative shares: how far the values would have to be moved on average.
    Zeros stand apart and are left out; what lies outside of the edges counts at the outermost edge. None
    when either has no element but zeros, or the edges are not the same.
    """
    if a is None or b is None or a.edges != b.edges:
        return None
    first, second = _shares(a), _shares(b)
    if first is None or second is None:
        return None
    # The share below every edge; within a bin it runs straight from one edge to the next.
    gap = np.cumsum(first)[:-1] - np.cumsum(second)[:-1]
    return _area(gap, np.diff(a.edges))


def population_stability_index(a: LogHistogram | None, b: LogHistogram | None) -> float | None:
    """Return the population stability index over the bins of log10 |x|, zeros a bin of their own.

    It is sum((p - q) ln(p / q)); by custom below 0.1 little has changed, above 0.25 much. None when either is
    empty, or the edges are not the same.
    """
    if a is None or b is None or a.edges != b.edges:
        return None
    p, q = _all_shares(a), _all_shares(b)
    if p is None or q is None:
        return None
    p, q = np.maximum(p, _SMALLEST_SHARE), np.maximum(q, _SMALLEST_SHARE)
    return float(np.sum((p - q) * np.log(p / q)))


def spectral_distance(a: Spectrum | None, b: Spectrum | None) -> float | None:
    """Return the Wasserstein-1 distance between two radial spectra, as a share of the Nyquist frequency.

    Frequencies are taken in cycles per field, so that fields of different resolution are compared mode by
    mode. None without a spectrum on both sides, or when the numbers of axes differ.
    """
    if a is None or b is None or len(a.sizes) != len(b.sizes):
        return None
    first, second = math.prod(a.sizes) ** (1 / len(a.sizes)), math.prod(b.sizes) ** (1 / len(b.sizes))
    edges_a, edges_b = np.asarray(a.band_edges) * first, np.asarray(b.band_edges) * second
    common = np.unique(np.concatenate((edges_a, edges_b)))
    cumulative_a = np.interp(common, edges_a, np.concatenate(([0.0], np.cumsum(a.bands))), right=1.0)
    cumulative_b = np.interp(common, edges_b, np.concatenate(([0.0], np.cumsum(b.bands))), right=1.0)
    area = _area(cumulative_a - cumulative_b, np.diff(common))
    nyquist = float(min(first, second)) / 2
    return area / nyquist


def _area(gap: npt.NDArray[np.float64], widths: npt.NDArray[np.float64]) -> float:
    """Return the area under |gap|, which runs straight between the points where it is given."""
    before, after = np.abs(gap[:-1]), np.abs(gap[1:])
    both = before + after
    crosses = (gap[:-1] * gap[1:] < 0) & (both > 0)
    # Where it crosses zero the area is that of two triangles.
    triangles = (before**2 + after**2) / np.where(both > 0, both, 1)
    return float(np.sum(np.where(crosses, triangles, both) / 2 * widths))


def _shares(histogram: LogHistogram) -> npt.NDArray[np.float64] | None:
    """Shares at the lowest edge, in each bin, and at the highest edge; without zeros."""
    counts = np.asarray([histogram.below, *histogram.counts, histogram.above], dtype=np.float64)
    total = counts.sum()
    return counts / total if total else None


def _all_shares(histogram: LogHistogram) -> npt.NDArray[np.float64] | None:
    counts = np.asarray(
        [histogram.zeros, histogram.below, *histogram.counts, histogram.above], dtype=np.float64
    )
    total = counts.sum()
    return counts / total if total else None
