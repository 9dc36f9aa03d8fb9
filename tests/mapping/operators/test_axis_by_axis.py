"""Spectral layers that take one axis after the other and return tuples, as in F-FNO, and shared ones."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from support.notes import Notes


class AlongAxes(nn.Module):
    """Channels-last: one transform for each axis, added, then networks for a backcast and a forecast."""

    def __init__(self, channels, modes, forked, weights=None):
        super().__init__()
        self.weights = weights or nn.ParameterList(
            torch.randn(channels, channels, modes, dtype=torch.cfloat) / channels for _ in range(2)
        )
        self.modes = modes
        self.backcast = nn.Sequential(nn.Linear(channels, 8), nn.ReLU(), nn.Linear(8, channels))
        self.forecast = nn.Linear(channels, channels) if forked else None

    def forward(self, x):
        fields = x.permute(0, 3, 1, 2)
        total = self._along(fields, -1, self.weights[0]) + self._along(fields, -2, self.weights[1])
        total = total.permute(0, 2, 3, 1)
        return self.backcast(total), self.forecast(total) if self.forecast is not None else None

    def _along(self, x, axis, weights):
        spectrum = torch.fft.rfft(x, dim=axis, norm="ortho").movedim(axis, -1)
        kept = torch.zeros_like(spectrum)
        kept[..., : self.modes] = torch.einsum("bink,iok->bonk", spectrum[..., : self.modes], weights)
        return torch.fft.irfft(kept.movedim(-1, axis), n=x.shape[axis], dim=axis, norm="ortho")


class Factorised(nn.Module):
    """Residual layers whose forecasts are added up beside them; weights may be shared by all layers."""

    def __init__(self, channels, depth=3, forked=True, shared=False):
        super().__init__()
        self.in_proj, self.out = nn.Linear(3, channels), nn.Linear(channels, 1)
        first = AlongAxes(channels, 3, forked)
        rest = [AlongAxes(channels, 3, forked, first.weights if shared else None) for _ in range(depth - 1)]
        self.spectral_layers, self.noted = nn.ModuleList([first, *rest]), Notes()

    def forward(self, x):
        x, forecast = self.in_proj(x), 0
        for layer in self.spectral_layers:
            backcast, part = layer(x)
            y = x + backcast
            self.noted.append({"x": x, "y": y})
            x = y
            if part is not None:
                forecast = forecast + self.out(part)
        return forecast if self.spectral_layers[0].forecast is not None else self.out(x)


@pytest.mark.parametrize("sizes", [(9, 12), (6, 6)])
@pytest.mark.parametrize("forked", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_layers_along_one_axis_at_a_time_have_all_axes_as_space(sizes, forked, shared, recognised, agree):
    # With 6 x 6 points there are as many channels as rows and columns.
    model = Factorised(6, forked=forked, shared=shared)
    layers = [f"spectral_layers.{k}" for k in range(3)]
    record = recognised(
        model,
        torch.rand(2, *sizes, 3),
        roles={"in_proj": "lifting", "out": "projection"} | dict.fromkeys(layers, "spectral"),
        space=dict.fromkeys(("in_proj", "out", *layers), (1, 2)),
        blocks=[(f"#{k}", [layer], []) for k, layer in enumerate(layers)],
    )
    agree(record.blocks, model.noted[-3:], space=(1, 2))
    assert ft.map_model(model, torch.rand(2, *sizes, 3))["spectral_layers.1"].modes == (3, 3)
    items = {m.item for m in record.modules if m.name == "spectral_layers.1"}
    assert items == ({"0", "1"} if forked else {"0"})
    assert record.module("spectral_layers.1", item="0").spatial_axes == (1, 2)


class Shared(nn.Module):
    """One spectral layer for all blocks, registered under a name of each of them and one of the model."""

    class Block(nn.Module):
        def __init__(self, spectral, channels):
            super().__init__()
            self.spectral, self.local, self.noted = spectral, nn.Conv2d(channels, channels, 1), Notes()

        def forward(self, x):
            s, t = self.spectral(x), self.local(x)
            y = x + functional.gelu(s + t)
            self.noted.append({"s": s, "t": t, "x": x, "y": y, "entered": x, "left": y})
            return y

    def __init__(self, channels=4):
        super().__init__()
        self.lifter, self.output_proj = nn.Conv2d(1, channels, 1), nn.Conv2d(channels, 1, 1)
        self.shared_spectral = Quarter(channels, 3)
        self.blocks = nn.ModuleList(self.Block(self.shared_spectral, channels) for _ in range(3))

    def forward(self, x):
        x = self.lifter(x)
        for block in self.blocks:
            x = block(x)
        return self.output_proj(x)


class Quarter(nn.Module):
    def __init__(self, channels, modes):
        super().__init__()
        self.modes = modes
        self.weights = nn.Parameter(torch.randn(channels, channels, dtype=torch.cfloat) / channels)

    def forward(self, x):
        spectrum = torch.fft.rfft2(x)
        kept = torch.zeros_like(spectrum)
        m = self.modes
        kept[..., :m, :m] = torch.einsum("bihw,io->bohw", spectrum[..., :m, :m], self.weights)
        return torch.fft.irfft2(kept, s=x.shape[-2:])


def test_a_spectral_module_under_several_names_goes_by_that_of_the_block_that_calls_it(recognised, agree):
    model = Shared()
    blocks = [f"blocks.{k}" for k in range(3)]
    record = recognised(
        model,
        torch.rand(3, 1, 8, 10),
        roles={"lifter": "lifting", "output_proj": "projection"}
        | dict.fromkeys(blocks, "block")
        | {
            f"{block}.{part}": role
            for block in blocks
            for part, role in (("spectral", "spectral"), ("local", "local"))
        },
        space={f"{block}.{part}": (2, 3) for block in blocks for part in ("spectral", "local")},
        blocks=[(block, [f"{block}.spectral"], [f"{block}.local"]) for block in blocks],
    )
    agree(record.blocks, [block.noted[-1] for block in model.blocks])


class Held(nn.Module):
    """Two names for one spectral layer in the module that calls it three times."""

    def __init__(self, channels=4):
        super().__init__()
        self.first = self.again = Quarter(channels, 3)
        self.mixers = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.noted = Notes()

    def forward(self, x):
        for k, mixer in enumerate(self.mixers):
            s, t = (self.first, self.again)[k % 2](x), mixer(x)
            y = x + functional.gelu(s + t)
            self.noted.append({"s": s, "t": t, "x": x, "y": y})
            x = y
        return x


def test_each_call_of_one_spectral_layer_is_its_own_pair(recognised, agree):
    model = nn.Sequential(nn.Conv2d(1, 4, 1), Held(), nn.Conv2d(4, 1, 1))
    record = recognised(
        model,
        torch.rand(3, 1, 8, 10),
        roles={"0": "lifting", "2": "projection", "1.first": "spectral"}
        | {f"1.mixers.{k}": "local" for k in range(3)},
        space={"1.first": (2, 3)},
        blocks=[(f"1#{k}", ["1.first"], [f"1.mixers.{k}"]) for k in range(3)],
    )
    agree(record.blocks, model[1].noted[-3:])
    assert [m.call for m in record.modules if m.name == "1.first"] == [0, 1, 2]
    assert ft.map_model(model, torch.rand(3, 1, 8, 10))["1.first"].calls == 3
