"""Networks without a scale of their own: small values are no fault where the input is as small."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from fno_telemetry.architectures.layers import SpectralConvolution
from fno_telemetry.diagnosis import example_records

X = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(3))


def warned(model, x=X):
    return {(f.rule, f.layer) for f in ft.diagnose(ft.capture(model, x)) if f.severity != "note"}


class Scaled(nn.Module):
    """Layer scale, then a module that changes nothing in eval mode."""

    def __init__(self, scale, tail):
        super().__init__()
        self.norm, self.spectral, self.tail = nn.InstanceNorm2d(4), SpectralConvolution(4, 4, 3), tail
        self.scale = nn.Parameter(torch.full((4, 1, 1), scale))

    def forward(self, x):
        return x + self.tail(self.scale * self.spectral(self.norm(x)))


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-6])
@pytest.mark.parametrize("tail", [nn.Identity, nn.Dropout])
def test_layer_scale_is_no_fault_whatever_comes_after_it(scale, tail):
    torch.manual_seed(0)
    blocks = [Scaled(scale, tail()) for _ in range(3)]
    assert warned(nn.Sequential(nn.Conv2d(1, 4, 1), *blocks, nn.Conv2d(4, 1, 1))) <= {
        ("linear_network", None)
    }  # without an activation, as it says


class Beside(nn.Module):
    """A small correction of a large prediction."""

    def __init__(self, act, factor):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.act, self.last, self.factor = act, nn.Conv2d(4, 4, 1, bias=False), factor

    def forward(self, x):
        y = self.first(x)
        return y + self.last(self.act(self.second(self.factor * y)))


@pytest.mark.parametrize("act", [nn.ReLU(), nn.ReLU(inplace=True), nn.GELU(), nn.SiLU()])
@pytest.mark.parametrize("factor", [1e-4, 1e-8])
def test_layers_at_a_small_scale_are_not_dead_vanished_or_switched_off(act, factor):
    torch.manual_seed(0)
    assert warned(Beside(act, factor)) == set()


def test_what_makes_values_small_or_zero_is_still_found():
    torch.manual_seed(0)
    model = Beside(nn.ReLU(), 1.0)
    with torch.no_grad():
        model.second.weight.mul_(1e-5)
    assert ("vanishing_activations", "second") in warned(model)
    with torch.no_grad():
        model.second.weight.zero_()
    assert ("dead_layer", "second") in warned(model)
    torch.manual_seed(0)
    negative = Beside(nn.ReLU(), 1.0)
    negative.second = nn.Conv2d(4, 4, 1)
    with torch.no_grad():
        negative.second.bias.fill_(-20)
    assert ("saturated_activation", "act") in warned(negative)


def test_a_norm_over_coefficients_is_no_fault():
    class OverCoefficients(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.mix = nn.LayerNorm(2), nn.Linear(2, 2)

        def forward(self, x):
            parts = torch.view_as_real(torch.fft.rfft2(x))
            return torch.fft.irfft2(torch.view_as_complex(self.mix(self.norm(parts))), s=x.shape[-2:])

    torch.manual_seed(0)
    blocks = [OverCoefficients() for _ in range(2)]
    big = functional.interpolate(X, size=(128, 128))
    assert warned(nn.Sequential(nn.Conv2d(1, 4, 1), *blocks, nn.Conv2d(4, 1, 1)), big) == set()


class BlocksOfTheRoot(nn.Module):
    """Blocks without a module of their own, the first of which has an input far smaller than its biases."""

    def __init__(self):
        super().__init__()
        self.lift, self.out = nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 1, 1)
        self.spectral = nn.ModuleList(SpectralConvolution(4, 4, 3) for _ in range(3))
        self.local = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(3))
        nn.init.constant_(self.lift.weight, 1e-3)

    def forward(self, x):
        x = self.lift(x)
        for spectral, local in zip(self.spectral, self.local, strict=True):
            x = functional.gelu(spectral(x) + local(x))
        return self.out(x)


def test_biases_are_no_explosion_in_blocks_without_a_module_of_their_own():
    torch.manual_seed(0)
    record = ft.capture(BlocksOfTheRoot(), X)
    assert record.blocks[0].stats["gain"] > 50
    assert [f for f in ft.diagnose(record) if f.rule == "exploding_activations"] == []


def test_a_spectral_branch_is_compared_with_blocks_of_as_many_branches():
    record = example_records.change_block(example_records.healthy_record(), 1, spectral_local_ratio=0.02)
    assert [f.rule for f in ft.diagnose(record) if f.severity != "note"] == ["spectral_branch_weak"]
    several = replace(record.blocks[1], local=("a", "b"))
    record = replace(record, blocks=(record.blocks[0], several, *record.blocks[2:]))
    assert [f.rule for f in ft.diagnose(record) if f.rule == "spectral_branch_weak"] == []
