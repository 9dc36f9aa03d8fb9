"""What a spectral layer cuts off its input, whichever samples come first and however they are batched."""

import numpy as np
import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.architectures.layers import SpectralConvolution


def fraction(x, modes=3):
    """Energy outside of the rows and columns that pass, in the half spectrum, by plain loops over it."""
    x = x.detach().double().numpy()
    rows, columns = x.shape[-2:]
    spectrum = abs(np.fft.rfft2(x)) ** 2
    total = kept = 0.0
    for p in range(rows):
        for q in range(columns // 2 + 1):
            weight = 1 if q == 0 or 2 * q == columns else 2
            energy = weight * spectrum[..., p, q].sum() if (p, q) != (0, 0) else 0.0
            total += energy
            kept += energy if p < modes and q < modes else 0.0
    return 1 - kept / total


@pytest.fixture
def network():
    """A lift point by point, so that a constant sample stays constant, then a spectral layer."""
    return nn.Sequential(nn.Conv2d(1, 4, 1), SpectralConvolution(4, 4, 3))


@pytest.mark.parametrize("size", [(16, 16), (9, 7), (4, 4), (2, 5)])
def test_it_is_that_of_numpy_in_every_batch_size(size, network):
    x = torch.randn(6, 1, *size)
    expected = fraction(network[0](x))
    for batches in (x, list(x.split(4)), list(x.split(1))):
        stats = ft.capture(network, batches).module("1").stats
        assert stats["truncated_energy_fraction"] == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("first", ["blank", "wave", "edge"])
@pytest.mark.parametrize("split", [6, 1])
def test_a_first_sample_that_excites_few_modes_does_not_hide_the_others(first, split, network):
    x = torch.randn(6, 1, 16, 16)
    columns = torch.arange(16.0)
    x[0] = {"blank": 0 * columns, "wave": torch.cos(columns * torch.pi / 8), "edge": (columns > 8) * 1.0}[
        first
    ]
    expected = fraction(network[0](x))
    stats = ft.capture(network, list(x.split(split))).module("1").stats
    assert stats["truncated_energy_fraction"] == pytest.approx(expected, rel=1e-4)


def test_batches_of_different_resolution_are_pooled(network):
    coarse, fine = torch.randn(3, 1, 8, 8), torch.randn(3, 1, 16, 20)
    energies = [
        float((y - y.mean((2, 3), keepdim=True)).detach().square().sum())
        for y in (network[0](coarse), network[0](fine))
    ]
    shares = [fraction(network[0](coarse)), fraction(network[0](fine))]
    expected = np.average(shares, weights=energies)
    spectral = ft.capture(network, [coarse, fine]).module("1")
    assert spectral.stats["truncated_energy_fraction"] == pytest.approx(expected, rel=1e-4)


def test_input_that_is_constant_in_space_has_none_with_a_reason(network):
    spectral = ft.capture(network, torch.ones(2, 1, 8, 8)).module("1")
    assert spectral.stats["truncated_energy_fraction"] is None
    assert spectral.reasons["truncated_energy_fraction"] == "the fields are constant in space"


def test_a_layer_that_transforms_several_times_has_none_with_a_reason():
    class Several(nn.Module):
        def forward(self, x):
            return sum(torch.fft.irfft(torch.fft.rfft(x, dim=a), n=x.shape[a], dim=a) for a in (2, 3))

    spectral = ft.capture(nn.Sequential(Several()), torch.rand(2, 1, 8, 8)).module("0")
    assert spectral.role == "spectral"
    assert spectral.stats["truncated_energy_fraction"] is None
    assert "could not be detected" in spectral.reasons["truncated_energy_fraction"]


def test_only_spectral_layers_have_it(network):
    record = ft.capture(network, torch.rand(2, 1, 8, 8))
    assert "truncated_energy_fraction" not in record.module("0").stats
