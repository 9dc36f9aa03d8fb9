"""Distances between distributions agree with slow computations on samples."""

import math

import numpy as np
import pytest

from fno_telemetry.comparison.distances import (
    population_stability_index,
    spectral_distance,
    wasserstein_decades,
)
from fno_telemetry.records import LogHistogram, Spectrum
from fno_telemetry.statistics.histograms import LOG_EDGES


def histogram_of(values: np.ndarray, zeros: int = 0) -> LogHistogram:
    decades = np.log10(np.abs(values))
    counts, _ = np.histogram(decades, LOG_EDGES)
    below, above = int((decades < LOG_EDGES[0]).sum()), int((decades > LOG_EDGES[-1]).sum())
    return LogHistogram(LOG_EDGES, tuple(counts.tolist()), below, above, zeros)


def spectrum_of(bands: tuple[float, ...], size: int = 64) -> Spectrum:
    edges = tuple(index / 32 for index in range(len(bands) + 1))
    return Spectrum((size, size), 1, 0, 1 / 8, 1 / 4, edges, bands, (0.0, 0.5), ((1.0,), (1.0,)))


def test_a_distribution_is_no_distance_from_itself() -> None:
    histogram = histogram_of(np.random.default_rng(0).normal(size=1000), zeros=3)
    assert wasserstein_decades(histogram, histogram) == 0
    assert population_stability_index(histogram, histogram) == 0


@pytest.mark.parametrize("factor", [1.0001, 1.5, 10.0, 1000.0])
def test_scaling_moves_values_by_the_logarithm_of_the_factor(factor: float) -> None:
    values = np.random.default_rng(1).lognormal(size=200_000)
    distance = wasserstein_decades(histogram_of(values), histogram_of(values * factor))
    assert distance == pytest.approx(math.log10(factor), abs=0.01)


def test_the_distance_is_the_mean_gap_between_sorted_values() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.lognormal(0, 1, 100_000), rng.lognormal(0.5, 2, 100_000)
    slow = np.mean(np.abs(np.sort(np.log10(a)) - np.sort(np.log10(b))))
    assert wasserstein_decades(histogram_of(a), histogram_of(b)) == pytest.approx(slow, rel=0.02)


def test_zeros_stand_apart_from_the_distance_but_count_in_the_stability_index() -> None:
    values = np.random.default_rng(3).lognormal(size=1000)
    plain, with_zeros = histogram_of(values), histogram_of(values, zeros=1000)
    assert wasserstein_decades(plain, with_zeros) == 0
    assert population_stability_index(plain, with_zeros) > 0.25


def test_a_layer_of_zeros_has_no_distance() -> None:
    zeros = LogHistogram(LOG_EDGES, (0,) * 64, 0, 0, 50)
    assert wasserstein_decades(zeros, histogram_of(np.ones(3))) is None
    assert wasserstein_decades(None, zeros) is None
    assert population_stability_index(None, zeros) is None


def test_the_stability_index_is_the_sum_over_bins() -> None:
    first = LogHistogram(LOG_EDGES, (50, 50) + (0,) * 62, 0, 0, 0)
    second = LogHistogram(LOG_EDGES, (75, 25) + (0,) * 62, 0, 0, 0)
    expected = (0.5 - 0.75) * math.log(0.5 / 0.75) + (0.5 - 0.25) * math.log(0.5 / 0.25)
    assert population_stability_index(first, second) == pytest.approx(expected)


def test_spectra_one_band_apart_are_a_band_of_nyquist_apart() -> None:
    assert spectral_distance(spectrum_of((1.0, 0.0, 0.0)), spectrum_of((0.0, 1.0, 0.0))) == pytest.approx(
        1 / 16
    )


def test_the_same_modes_at_another_resolution_are_no_distance_apart() -> None:
    coarse = spectrum_of((0.5, 0.5) + (0.0,) * 14, size=32)
    fine = spectrum_of((1.0,) + (0.0,) * 15, size=64)
    assert spectral_distance(coarse, fine) == pytest.approx(0, abs=1e-12)
    assert spectral_distance(coarse, spectrum_of((0.5, 0.5) + (0.0,) * 14, size=64)) > 0.05


def test_histograms_of_other_edges_are_not_compared() -> None:
    other = LogHistogram(tuple(edge + 0.1 for edge in LOG_EDGES), (1,) * 64, 0, 0, 0)
    same = LogHistogram(LOG_EDGES, (1,) * 64, 0, 0, 0)
    assert wasserstein_decades(same, other) is None
    assert population_stability_index(same, other) is None


def test_a_distance_beyond_float64_is_undefined_without_a_warning() -> None:
    histogram = LogHistogram((-1.7e308, 0.0, 1.7e308), (4, 0), 0, 0, 0)
    other = LogHistogram((-1.7e308, 0.0, 1.7e308), (0, 0), 0, 4, 0)
    assert wasserstein_decades(histogram, other) is None
    wide = Spectrum((64, 64), 1, 0, 1 / 8, 1 / 4, (0.0, 1e308), (1.7e308,), (0.0, 0.5), ((1.0,), (1.0,)))
    assert spectral_distance(wide, spectrum_of((0.5, 0.5))) is None
