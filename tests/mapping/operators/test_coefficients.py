"""Modules that are given Fourier coefficients: axes of frequencies are neither space nor channels."""

import numpy as np
import pytest
import torch
from torch import nn

import fno_telemetry as ft


class OnStackedParts(nn.Module):
    """Layers over real and imaginary parts, as channels, between a transform and its inverse."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2 * channels, 2 * channels, 1), nn.BatchNorm2d(2 * channels)
        self.act = nn.LeakyReLU()

    def forward(self, x):
        spectrum = torch.fft.rfft2(x)
        parts = torch.view_as_real(spectrum).permute(0, 1, 4, 2, 3).flatten(1, 2)
        parts = self.act(self.norm(self.conv(parts)))
        parts = parts.unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2).contiguous()
        return torch.fft.irfft2(torch.view_as_complex(parts), s=x.shape[-2:])


class InBlocksOfChannels(nn.Module):
    """Layers over blocks of channels at the end, for the lowest frequencies of an image of tokens."""

    def __init__(self, channels, blocks=2, kept=4):
        super().__init__()
        self.first, self.act = nn.Linear(channels // blocks, channels // blocks), nn.GELU()
        self.blocks, self.kept = blocks, kept

    def forward(self, x):
        fields = x.movedim(1, -1)
        spectrum = torch.fft.rfft2(fields, dim=(1, 2), norm="ortho")
        low = spectrum[:, : self.kept, : self.kept].unflatten(-1, (self.blocks, -1))
        mixed = torch.complex(self.act(self.first(low.real)), self.first(low.imag))
        result = torch.zeros_like(spectrum)
        result[:, : self.kept, : self.kept] = mixed.flatten(-2)
        return torch.fft.irfft2(result, s=fields.shape[1:3], dim=(1, 2), norm="ortho").movedim(-1, 1)


class Operator(nn.Module):
    def __init__(self, spectral, channels=6):
        super().__init__()
        self.lift, self.head = nn.Conv2d(1, channels, 1), nn.Conv2d(channels, 1, 1)
        self.spectral, self.local = spectral(channels), nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        x = self.lift(x)
        return self.head(self.spectral(x) + self.local(x))


@pytest.mark.parametrize(
    ("spectral", "channels"),
    [
        (OnStackedParts, {"conv": 1, "norm": 1, "act": 1}),
        (InBlocksOfChannels, {"first": 4, "act": 3}),
    ],
)
@pytest.mark.parametrize("size", [(9, 12), (8, 8)])
def test_coefficients_have_channels_but_no_space(spectral, channels, size, recognised):
    # With 8 x 8 points, the kept frequencies along the first axis may have the size of the grid.
    torch.manual_seed(0)
    record = recognised(
        Operator(spectral).eval(),
        torch.rand(3, 1, *size),
        roles={"lift": "lifting", "spectral": "spectral", "local": "local", "head": "projection"},
        space={"lift": (2, 3), "spectral": (2, 3), "local": (2, 3), "head": (2, 3)}
        | dict.fromkeys([f"spectral.{name}" for name in channels], ()),
        blocks=[("#0", ["spectral"], ["local"])],
    )
    model_map = ft.map_model(Operator(spectral).eval(), torch.rand(3, 1, *size))
    assert {name: model_map[f"spectral.{name}"].channel_axis for name in channels} == channels
    for name in channels:
        stats = record.module(f"spectral.{name}").stats
        assert stats["high_frequency_fraction"] is None
        assert stats["dead_channel_fraction"] == 0.0


class Apart(nn.Module):
    """Transform, product and inverse transform are three modules."""

    def __init__(self, channels=5, modes=3):
        super().__init__()
        self.lift, self.mix = nn.Linear(1, channels), nn.Linear(channels, channels, bias=False)
        self.transform, self.back = Transform(modes), Back()

    def forward(self, x):
        x = self.lift(x)
        low = self.transform(x)
        return x + self.back(torch.complex(self.mix(low.real), self.mix(low.imag)), x.shape[1])


class Transform(nn.Module):
    def __init__(self, modes):
        super().__init__()
        self.modes = modes

    def forward(self, x):
        return torch.fft.rfft(x, dim=1)[:, : self.modes]


class Back(nn.Module):
    def forward(self, spectrum, points):
        return torch.fft.irfft(spectrum, n=points, dim=1)


def test_large_low_frequencies_are_no_heavy_tail():
    torch.manual_seed(0)
    x = torch.full((4, 64, 1), 1e4) + torch.rand(4, 64, 1)
    record = ft.capture(Apart(modes=33), x)
    mixed = record.module("mix")
    assert mixed.spatial_axes == ()
    assert max(abs(mixed.stats["min"]), abs(mixed.stats["max"])) > 1000 * mixed.stats["abs_p95"]
    assert [f.layer for f in ft.diagnose(record) if f.rule == "heavy_tail"] == []


class TransformedForGood(nn.Module):
    """A network that goes on with what a transform returned, without its inverse: these are its fields."""

    def __init__(self):
        super().__init__()
        self.lift, self.conv = nn.Conv1d(1, 4, 1), nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x):
        x = self.lift(x)
        return self.conv(x + torch.fft.fft(x).real)


def test_what_is_never_transformed_back_keeps_its_axes():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 1, 16))).float()
    model_map = ft.map_model(TransformedForGood(), x)
    assert [model_map[name].spatial_axes for name in ("lift", "conv")] == [(2,), (2,)]
