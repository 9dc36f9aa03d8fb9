"""Distances between the distributions in two records: of magnitudes, and of energy over frequency."""

import math

import numpy as np
import numpy.typing as npt

from fno_telemetry.records import LogHistogram, Spectrum

_SMALLEST_SHARE = 1e-4
"""Smaller shares count as this one in the PSI, so that an empty bin does not make it infinite."""


# A report may hold any number that float64 has; a distance beyond it is undefined, not a warning.
_quietly = np.errstate(over="ignore", invalid="ignore")


@_quietly
def wasserstein_decades(a: LogHistogram | None, b: LogHistogram | None) -> float | None:
    """Return the Wasserstein-1 distance between two distributions of log10 |x|, in decades.

    It is the area between the cumulative distributions [1]: the mean distance that values would have to move.
    Zeros are left out; values outside the edges count at the outermost edge. None if either has no nonzero
    elements, or if the edges differ.

    [1] Vallender: Calculation of the Wasserstein distance between probability distributions on the line.
    """
    if a is None or b is None or a.edges != b.edges:
        return None
    first, second = _shares(a), _shares(b)
    if first is None or second is None:
        return None
    # The difference of the shares below every edge, linear within a bin.
    gap = np.cumsum(first)[:-1] - np.cumsum(second)[:-1]
    return _area(gap, np.diff(a.edges))


def population_stability_index(a: LogHistogram | None, b: LogHistogram | None) -> float | None:
    """Return the population stability index over the bins of log10 |x|, with one more bin for zeros.

    It is sum((p - q) ln(p / q)) [1]. By convention, below 0.1 is a small change and above 0.25 a large one.
    None if either is empty, or if the edges differ.

    [1] Siddiqi: Credit Risk Scorecards, 2006.
    """
    if a is None or b is None or a.edges != b.edges:
        return None
    p, q = _all_shares(a), _all_shares(b)
    if p is None or q is None:
        return None
    p, q = np.maximum(p, _SMALLEST_SHARE), np.maximum(q, _SMALLEST_SHARE)
    return float(np.sum((p - q) * np.log(p / q)))


@_quietly
def spectral_distance(a: Spectrum | None, b: Spectrum | None) -> float | None:
    """Return the Wasserstein-1 distance between two radial spectra, as a share of the Nyquist frequency.

    Frequencies are in cycles per field, so that fields of different resolutions are compared mode by mode.
    None if either has no spectrum, or if the numbers of axes differ.
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
    return None if area is None else area / nyquist


def _area(gap: npt.NDArray[np.float64], widths: npt.NDArray[np.float64]) -> float | None:
    """Return the area under |gap|, where `gap` is linear between the given points; None beyond float64."""
    before, after = np.abs(gap[:-1]), np.abs(gap[1:])
    both = before + after
    crosses = (gap[:-1] * gap[1:] < 0) & (both > 0)
    # Between points of different sign, the area consists of two triangles.
    triangles = (before**2 + after**2) / np.where(both > 0, both, 1)
    area = float(np.sum(np.where(crosses, triangles, both) / 2 * widths))
    return area if math.isfinite(area) else None


def _shares(histogram: LogHistogram) -> npt.NDArray[np.float64] | None:
    """Return the shares below the lowest edge, in each bin and above the highest edge, without zeros."""
    counts = np.asarray([histogram.below, *histogram.counts, histogram.above], dtype=np.float64)
    total = counts.sum()
    return counts / total if total else None


def _all_shares(histogram: LogHistogram) -> npt.NDArray[np.float64] | None:
    counts = np.asarray(
        [histogram.zeros, histogram.below, *histogram.counts, histogram.above], dtype=np.float64
    )
    total = counts.sum()
    return counts / total if total else None
