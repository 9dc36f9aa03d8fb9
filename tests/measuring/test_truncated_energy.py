"""What a spectral layer cuts off its input, whichever samples come first and however they are batched."""

import numpy as np
import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.architectures.layers import SpectralConvolution
from fno_telemetry.statistics.truncation import resample_modes


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


class Resampling(nn.Module):
    """Keeps the first modes of both signs along rows, and transforms back to another size."""

    def __init__(self, channels, modes, size, by_argument):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(channels, channels, dtype=torch.cfloat))
        self.modes, self.size, self.by_argument = modes, size, by_argument

    def forward(self, x):
        spectrum = torch.einsum("bihw,io->bohw", torch.fft.rfft2(x), self.weights)
        rows, columns = self.size
        if self.by_argument:
            # Only the first rows: what irfft2 itself crops or pads is at the end.
            return torch.fft.irfft2(spectrum[..., : self.modes, : self.modes], s=self.size)
        out = torch.zeros(*spectrum.shape[:2], rows, columns // 2 + 1, dtype=spectrum.dtype)
        out[..., : self.modes, : self.modes] = spectrum[..., : self.modes, : self.modes]
        return torch.fft.irfft2(out, s=self.size)


@pytest.mark.parametrize("by_argument", [True, False])
@pytest.mark.parametrize("size", [(24, 30), (9, 7), (16, 40), (12, 12)])
def test_a_layer_that_resamples_has_its_modes_at_the_size_of_its_input(size, by_argument):
    layer = Resampling(4, 3, size, by_argument)
    x = torch.randn(2, 4, 12, 15)
    model = nn.Sequential(nn.Identity(), layer)
    stats = ft.capture(model, x).module("1").stats
    assert stats["truncated_energy_fraction"] == pytest.approx(fraction(x), rel=1e-4)
    assert ft.map_model(model, x)["1"].modes == (3, 3)


def test_modes_of_both_signs_are_found_at_another_size():
    modes = torch.zeros(20, 11, dtype=torch.bool)
    modes[:3, :3] = modes[-2:, :3] = True
    kept = resample_modes(modes, True, (8, 9), True)
    expected = torch.zeros(8, 5, dtype=torch.bool)
    expected[:3, :3] = expected[-2:, :3] = True
    assert torch.equal(kept, expected)
    # The transform of complex fields has both signs along each axis; a real field has a wave in either.
    full = torch.zeros(10, 10, dtype=torch.bool)
    full[1, -2] = True
    halved = resample_modes(full, False, (8, 8), True)
    assert [tuple(place) for place in halved.nonzero().tolist()] == [(7, 2)]
    complex_field = resample_modes(full, False, (8, 8), False)
    assert [tuple(place) for place in complex_field.nonzero().tolist()] == [(1, 6)]


class Choosing(nn.Module):
    """A filter that depends on the data."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        spectrum = torch.fft.rfft2(x, norm="ortho")
        return torch.fft.irfft2(self.how(spectrum), s=x.shape[-2:], norm="ortho")


def largest(spectrum):
    """The same coefficients for all samples and channels."""
    size = spectrum.abs().sum((0, 1))
    least = size.flatten().topk(5).values[-1]
    return spectrum * (size >= least)


def by_hand(spectrum):
    mask = torch.from_numpy((abs(spectrum.numpy()) > 0.7).astype("float32"))
    return spectrum * mask


CHOICES = {
    "soft shrinkage": lambda f: torch.view_as_complex(
        nn.functional.softshrink(torch.view_as_real(f.contiguous()), 0.3)
    ),
    "the largest": largest,
    "a threshold": lambda f: f * (f.abs() > 0.7),
    "a mask made by NumPy": by_hand,
}


@pytest.mark.parametrize("split", [4, 1])
@pytest.mark.parametrize("choice", CHOICES)
def test_a_filter_that_depends_on_the_data_has_no_modes(choice, split):
    model = nn.Sequential(nn.Conv2d(1, 3, 1), Choosing(CHOICES[choice]))
    x = torch.randn(4, 1, 10, 9, generator=torch.Generator().manual_seed(1))
    filtered = ft.capture(model, list(x.split(split))).module("1")
    assert filtered.stats["truncated_energy_fraction"] is None
    assert "depends on the data" in filtered.reasons["truncated_energy_fraction"]
    assert ft.map_model(model, x)["1"].modes is None


def test_a_layer_that_appends_zeros_before_its_transform_has_none_with_a_reason():
    class Long(nn.Module):
        def forward(self, x):
            return torch.fft.irfft(torch.fft.rfft(x, n=2 * x.shape[-1]), n=2 * x.shape[-1])[
                ..., : x.shape[-1]
            ]

    model = nn.Sequential(nn.Identity(), Long())
    long = ft.capture(model, torch.randn(2, 3, 12)).module("1")
    assert long.role == "spectral"
    assert "another size than its input" in long.reasons["truncated_energy_fraction"]
    assert ft.map_model(model, torch.randn(2, 3, 12))["1"].modes is None


def test_a_layer_that_transforms_pairs_of_channels_has_the_modes_of_all():
    class Pairs(nn.Module):
        """Two complex fields of two channels each, as in layers over multivectors."""

        def forward(self, x):
            parts = []
            for first, modes in ((0, 3), (2, 5)):
                spectrum = torch.fft.fft2(torch.complex(x[:, first], x[:, first + 1]))
                kept = torch.zeros_like(spectrum)
                kept[:, :modes, :3] = spectrum[:, :modes, :3]
                back = torch.fft.ifft2(kept)
                parts += [back.real, back.imag]
            return torch.stack(parts, 1)

    assert ft.map_model(nn.Sequential(nn.Identity(), Pairs()), torch.randn(2, 4, 8, 9))["1"].modes == (5, 3)


class OfPairs(nn.Module):
    """Makes complex fields of pairs of real channels, and keeps a corner of their frequencies."""

    def forward(self, x):
        field = torch.complex(x[:, ::2], x[:, 1::2])
        spectrum = torch.fft.fft2(field)
        kept = torch.zeros_like(spectrum)
        kept[..., :3, :3] = spectrum[..., :3, :3]
        field = torch.fft.ifft2(kept)
        return torch.stack((field.real, field.imag), 2).flatten(1, 2)


class AsComplex(OfPairs):
    """Transforms real fields as complex ones."""

    def forward(self, x):
        spectrum = torch.fft.fft2(x.to(torch.cfloat))
        kept = torch.zeros_like(spectrum)
        kept[..., :3, :3] = spectrum[..., :3, :3]
        return torch.fft.ifft2(kept).real


def test_complex_fields_made_of_real_ones_have_none_with_a_reason():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), OfPairs())
    module = ft.capture(model, torch.randn(4, 1, 16, 16)).module("1")
    assert module.stats["truncated_energy_fraction"] is None
    assert "complex fields of its real input" in module.reasons["truncated_energy_fraction"]
    model = nn.Sequential(nn.Conv2d(1, 4, 1), AsComplex())
    assert ft.capture(model, torch.randn(4, 1, 16, 16)).module("1").stats["truncated_energy_fraction"] > 0
