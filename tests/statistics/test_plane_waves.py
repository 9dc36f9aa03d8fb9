"""Plane waves of every parity and direction land in the band of their frequency, whichever number looks."""

import math
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from fno_telemetry.statistics.accuracy import Accuracy
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import summarize_state
from fno_telemetry.statistics.spectrum import Spectrum
from fno_telemetry.statistics.subjects import Comparison, SpectralInput
from fno_telemetry.statistics.truncation import Truncation

SIZES = [(8,), (9,), (33,), *product((12, 15), (10, 21)), (64, 64), *product((8, 9), (10, 11), (12, 13))]
every_size = pytest.mark.parametrize("sizes", SIZES, ids=str)


def _directions(sizes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """A sample: along every axis and diagonal, slow, fast and in between, and the corner.

    A wave and the one against it are the same but for its phase.
    """
    ahead = [signs for signs in product((1, 0, -1), repeat=len(sizes)) if signs > (0,) * len(sizes)]
    fastest = [size // 2 for size in sizes]
    found = [tuple(fastest)]
    for turn, signs in enumerate(ahead):
        speeds = [max(1, (turn + axis) % 4 * k // 3) for axis, k in enumerate(fastest)]
        found.append(tuple(sign * k for sign, k in zip(signs, speeds, strict=True)))
    return found


def _wave(sizes: tuple[int, ...], cycles: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A field (1, 1, *sizes) of cos(2 pi k x + 0.3), or of exp(i (2 pi k x + 0.3))."""
    angle = torch.full(sizes, 0.3, dtype=torch.float64)
    for axis, (size, k) in enumerate(zip(sizes, cycles, strict=True)):
        place = torch.arange(size, dtype=torch.float64).reshape(
            [-1 if a == axis else 1 for a in range(len(sizes))]
        )
        angle = angle + 2 * math.pi * k / size * place
    wave = torch.polar(torch.ones(sizes, dtype=torch.float64), angle)
    return (wave if dtype.is_complex else wave.real).to(dtype)[None, None]


@every_size
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=["real", "complex"])
def test_a_plane_wave_lands_in_its_band(sizes: tuple[int, ...], dtype: torch.dtype, reference: Any) -> None:
    layout = Layout(0, 1, tuple(range(2, 2 + len(sizes))))
    # As the mask of the modes of a layer that keeps one band alone.
    axes = [np.abs(np.fft.fftfreq(size, 1 / size)).astype(int) for size in sizes]
    bands = reference.bands(sizes)[np.ix_(*axes)]
    if not dtype.is_complex:
        bands = bands[..., : sizes[-1] // 2 + 1]
    for cycles in _directions(sizes):
        square = sum(Fraction(k, size) ** 2 for k, size in zip(cycles, sizes, strict=True))
        band = next(i for i in range(28) if square <= Fraction(i + 1, 32) ** 2)
        wave = Activation(_wave(sizes, cycles, dtype), layout)

        spectrum = summarize_state(Spectrum(), Spectrum().measure(wave)).spectrum
        assert spectrum is not None
        assert spectrum.bands[band] == pytest.approx(1, abs=1e-6), cycles

        output = Activation(0.25 * wave.field[:, :, 0], layout)
        state = Accuracy().measure(Comparison(output, wave))
        compared = summarize_state(Accuracy(), state).accuracy_bands
        assert compared is not None
        own = [index == band + 1 for index in range(len(compared.band_edges))]
        assert [error is not None for error in compared.band_error] == own, cycles
        assert compared.band_error[band + 1] == pytest.approx(0.75, abs=1e-6), cycles
        assert compared.error[band + 1] == pytest.approx(sum(compared.error), rel=1e-6), cycles

        for cut, kept in ((0, bands == band), (1, bands != band)):
            state = Truncation().measure(SpectralInput(wave, torch.from_numpy(kept)))
            stats = summarize_state(Truncation(), state).stats
            assert stats["truncated_energy_fraction"] == pytest.approx(cut, abs=1e-6), cycles
