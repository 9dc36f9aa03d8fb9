"""Energies by band agree with what the_well computes, and keep the waves that other codes lose."""

import math

import numpy as np
import pytest
import torch

from fno_telemetry.statistics.accuracy import Accuracy
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import summarize_state
from fno_telemetry.statistics.subjects import Comparison

# The mean square in bands 1/32 wide, the mean of the fields in the first, of `sample(sizes)`: printed by
# `benchmarks/published_spectra.py --values` with the_well 1.2.0, whose `binned_spectral_mse` is right for
# every wave and parity. As a dependency it would take an older fsspec than the other packages.
BY_THE_WELL = {
    (33,): [
        0.26278259,
        0.00670139562,
        0.000536992569,
        0.00664765674,
        0.00572261655,
        0.00337340499,
        0.00407886567,
        0.00418672374,
        0.00487001575,
        0.00504811459,
        0.00439080252,
        0.00533861776,
        0.000740589471,
        0.0035667368,
        0.00981897239,
        0.0123918262,
    ],
    (16, 16): [
        0.264232037,
        0.00242309721,
        0.00151620299,
        0.00154069008,
        0.00258602471,
        0.000812048737,
        0.00254943108,
        0.00274148277,
        0.00637361538,
        0.00372593414,
        0.00545714677,
        0.00594332995,
        0.00715700204,
        0.00352593473,
        0.00803297413,
        0.00504918412,
        0.0083829042,
        0.00591170386,
        0.0064344307,
        0.00405597845,
        0,
        0.0011839776,
        9.93446339e-05,
    ],
    (15, 22): [
        0.27513644,
        0.00103929297,
        0.00176905501,
        0.000722589465,
        0.00414685381,
        0.00143278069,
        0.00368542528,
        0.00658804521,
        0.00448917305,
        0.0047405013,
        0.00444480698,
        0.00526108559,
        0.00526252592,
        0.00998908274,
        0.00605223035,
        0.00731281154,
        0.00391757506,
        0.00502736946,
        0.00400157683,
        0.00398561817,
        0.00156663703,
        0.000292365126,
        0,
    ],
    (8, 9, 10): [
        0.259291165,
        0,
        0,
        0.000854689693,
        0.000635069918,
        0.000584629241,
        0.00069410777,
        0.00140344438,
        0.00380801941,
        0.00159429135,
        0.00505651898,
        0.00357827463,
        0.00577928073,
        0.00403758485,
        0.00591707694,
        0.00710202096,
        0.00932781322,
        0.00799507272,
        0.00649288246,
        0.00478533116,
        0.00511752033,
        0.00274196958,
        0.00304791912,
        0.00144021244,
        0.000733532793,
        0.000187114198,
        0.000324093567,
        0,
    ],
}


def sample(sizes: tuple[int, ...]) -> torch.Tensor:
    """Two fields of irregular numbers in [0, 1) that need no generator."""
    index = np.arange(2 * math.prod(sizes), dtype=np.float64)
    return torch.from_numpy((index * index * 0.7548776662 % 1).reshape(2, 1, *sizes))


def errors_by_band(error: torch.Tensor) -> list[float]:
    """The mean square of an error in each band, that of the means first."""
    layout = Layout(0, 1, tuple(range(2, error.ndim)))
    target = torch.ones_like(error)
    pair = Comparison(*(Activation(side, layout) for side in (target + error, target)))
    bands = summarize_state(Accuracy(), Accuracy().measure(pair)).accuracy_bands
    assert bands is not None
    return [energy / error.numel() for energy in bands.error]


@pytest.mark.parametrize("sizes", BY_THE_WELL, ids=str)
def test_the_error_of_each_band_is_the_one_by_the_well(sizes: tuple[int, ...]) -> None:
    mean, first, *rest = errors_by_band(sample(sizes))
    expected = BY_THE_WELL[sizes]
    assert [mean + first, *rest] == pytest.approx(expected, rel=1e-6, abs=1e-12)  # it adds 1e-7 to counts


@pytest.mark.parametrize(("cycles", "band"), [((1, -1), 1), ((28, 28), 20)], ids=str)
def test_waves_that_a_quadrant_or_a_circle_of_frequencies_loses_are_kept(
    cycles: tuple[int, int], band: int
) -> None:
    place = 2 * math.pi / 64 * torch.arange(64, dtype=torch.float64)
    wave = torch.cos(cycles[0] * place[:, None] + cycles[1] * place)
    energies = errors_by_band(wave[None, None])
    assert energies[band] == pytest.approx(1 / 2, rel=1e-9)
    assert sum(energies) == pytest.approx(1 / 2, rel=1e-9)
