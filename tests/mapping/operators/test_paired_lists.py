"""An encoder with two lists of layers, as in physicsnemo's FNO: no block has a module of its own."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from support.notes import Notes

ACTIVATION = nn.GELU()
"""One instance for all layers of all networks, as a default argument gives it."""


class RealPairs(nn.Module):
    """A two-sided spectral convolution with real weights: their last axis is real and imaginary part."""

    def __init__(self, channels, modes):
        super().__init__()
        self.modes = modes
        self.low = nn.Parameter(torch.randn(channels, channels, modes, modes, 2) / channels)
        self.high = nn.Parameter(torch.randn(channels, channels, modes, modes, 2) / channels)

    def forward(self, x):
        m, spectrum = self.modes, torch.fft.rfft2(x)
        kept = torch.zeros_like(spectrum)
        for rows, pairs in ((slice(m), self.low), (slice(-m, None), self.high)):
            weights = torch.view_as_complex(pairs)
            kept[:, :, rows, :m] = torch.einsum("bihw,iohw->bohw", spectrum[:, :, rows, :m], weights)
        return torch.fft.irfft2(kept, s=x.shape[-2:])


class Encoder(nn.Module):
    """Lifts the input with its coordinates, then adds pairs of a spectral and a 1x1 layer."""

    def __init__(self, channels, depth, activation, padding):
        super().__init__()
        self.activation, self.padding = activation, padding
        self.lift_network = nn.Sequential(nn.Conv2d(3, 4, 1), activation, nn.Conv2d(4, channels, 1))
        self.spconv_layers = nn.ModuleList(RealPairs(channels, 3) for _ in range(depth))
        self.conv_layers = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(depth))
        self.noted = Notes()

    def forward(self, x):
        rows, columns = (torch.linspace(0, 1, size) for size in x.shape[-2:])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(x), -1, -1, -1)
        x = self.lift_network(torch.cat([x, grid], 1))
        x = functional.pad(x, (0, self.padding, 0, self.padding))
        for k, (conv, spconv) in enumerate(zip(self.conv_layers, self.spconv_layers, strict=True)):
            t, s = conv(x), spconv(x)
            self.noted.append({"s": s, "t": t, "x": x, "y": t + s})
            x = t + s if k + 1 == len(self.conv_layers) else self.activation(t + s)
        return x[..., : x.shape[-2] - self.padding, : x.shape[-1] - self.padding]


class Network(nn.Module):
    """The encoder, then the same small network at every point."""

    def __init__(self, channels=6, depth=3, activation=ACTIVATION, padding=0):
        super().__init__()
        self.spec_encoder = Encoder(channels, depth, activation, padding)
        self.decoder_net = nn.Sequential(nn.Linear(channels, 5), activation, nn.Linear(5, 1))

    def forward(self, x):
        latent = self.spec_encoder(x).movedim(1, -1)
        points = self.decoder_net(latent.reshape(-1, latent.shape[-1]))
        return points.reshape(*latent.shape[:-1], -1).movedim(-1, 1)


ROLES = {
    "spec_encoder.lift_network": "lifting",
    **{f"spec_encoder.spconv_layers.{k}": "spectral" for k in range(3)},
    **{f"spec_encoder.conv_layers.{k}": "local" for k in range(3)},
    "spec_encoder": "block",
    "decoder_net": "projection",
}
BLOCKS = [
    (f"spec_encoder#{k}", [f"spec_encoder.spconv_layers.{k}"], [f"spec_encoder.conv_layers.{k}"])
    for k in range(3)
]


@pytest.fixture
def fields():
    return torch.rand(3, 1, 12, 10) + torch.arange(3.0)[:, None, None, None]


@pytest.mark.parametrize("padding", [0, 3])
def test_three_pairs_are_found_and_measured(padding, fields, recognised, agree):
    model = Network(padding=padding)
    space = {name: (2, 3) for name in ROLES if name != "decoder_net"} | {"decoder_net": ()}
    roles = {name: role for name, role in ROLES.items() if name != "spec_encoder"}
    record = recognised(model, fields, roles=roles, space=space, blocks=BLOCKS)
    valid = [{name: part[..., :12, :10] for name, part in n.items()} for n in model.spec_encoder.noted[-3:]]
    agree(record.blocks, valid)
    assert ft.map_model(model, fields)["spec_encoder.spconv_layers.0"].modes == (6, 3)


def test_an_activation_shared_by_all_layers_has_a_record_for_each_call(fields):
    record = ft.capture(Network(), fields)
    names = [m.name for m in record.modules if m.role == "activation"]
    assert len(names) == 4
    assert {m.class_name for m in record.modules if m.role == "activation"} == {"GELU"}


@pytest.mark.parametrize("first", [True, False])
def test_another_network_that_shares_the_activation_counts_for_nothing(first, fields):
    model, other = Network(), Network(depth=2)
    assert model.spec_encoder.activation is other.spec_encoder.activation

    def both(batch):
        for one in (other, model) if first else (model, other):
            one(batch)

    expected, record = ft.capture(model, fields), ft.capture(model, fields, forward=both)
    assert (record.modules, record.blocks, record.layers) == (
        expected.modules,
        expected.blocks,
        expected.layers,
    )
    assert ft.map_model(model, fields, forward=both).modules == ft.map_model(model, fields).modules


def test_parts_that_are_called_without_the_model_itself_are_measured(fields):
    model = Network()
    record = ft.capture(model, fields, forward=lambda batch: model.spec_encoder(batch))
    assert len(record.blocks) == 3
    assert record.module("spec_encoder.activation", call=1).parent == "spec_encoder"
