"""Operators that are channels-last inside or at their ends: like AFNO, the original FNO, over tokens."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from support.notes import Notes


class SpectrumMLP(nn.Module):
    """A block-diagonal network on the coefficients over axes 1 and 2, shrunk, with its input added inside."""

    def __init__(self, channels, parts=2, threshold=0.01, kept=1.0):
        super().__init__()
        self.parts, self.threshold, self.kept, size = parts, threshold, kept, channels // parts
        self.first = nn.Parameter(0.3 * torch.randn(2, parts, size, size))
        self.second = nn.Parameter(0.3 * torch.randn(2, parts, size, size))

    def forward(self, x):
        rows, columns = x.shape[1:3]
        spectrum = torch.fft.rfft2(x, dim=(1, 2), norm="ortho").unflatten(-1, (self.parts, -1))
        low = int((rows // 2 + 1) * self.kept)
        shrunk = torch.zeros_like(spectrum)
        hidden = self._mixed(spectrum[:, :, :low], self.first)
        hidden = torch.complex(functional.relu(hidden.real), functional.relu(hidden.imag))
        out = torch.view_as_real(self._mixed(hidden, self.second))
        shrunk[:, :, :low] = torch.view_as_complex(functional.softshrink(out, self.threshold))
        return torch.fft.irfft2(shrunk.flatten(-2), s=(rows, columns), dim=(1, 2), norm="ortho") + x

    def _mixed(self, spectrum, weights):
        return torch.einsum("bhwpi,pio->bhwpo", spectrum, torch.complex(*weights))


class Filtering(nn.Module):
    """A residual around the filter, and one around the network at every point."""

    def __init__(self, channels, double_skip):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.filter, self.double_skip = SpectrumMLP(channels), double_skip
        self.mlp = nn.Sequential(nn.Linear(channels, 8), nn.GELU(), nn.Linear(8, channels))
        self.noted = Notes()

    def forward(self, x):
        y = self.filter(self.norm1(x))
        if self.double_skip:
            first = y + x
            left = self.mlp(self.norm2(first)) + first
            self.noted.append({"x": x, "y": first, "entered": x, "left": left})
            return left
        left = self.mlp(self.norm2(y)) + x
        self.noted.append({"x": x, "y": left, "entered": x, "left": left})
        return left


class Patches(nn.Module):
    """Patches to (B, H, W, C), blocks, and patches back to an image, as AFNO does."""

    def __init__(self, channels, double_skip):
        super().__init__()
        self.patch_embed = nn.Conv2d(2, channels, 2, stride=2)
        self.position = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.blocks = nn.ModuleList(Filtering(channels, double_skip) for _ in range(2))
        self.head = nn.Linear(channels, 4)

    def forward(self, x):
        x = (self.patch_embed(x) + self.position).permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x)
        x = self.head(x).unflatten(-1, (2, 2))
        return x.permute(0, 1, 3, 2, 4).flatten(1, 2).flatten(2, 3).unsqueeze(1)


@pytest.mark.parametrize("double_skip", [True, False])
@pytest.mark.parametrize("size", [(16, 12), (12, 12)])
def test_a_filter_over_patches_is_spectral_over_axes_1_and_2(double_skip, size, recognised, agree):
    # With 12 x 12 pixels there are as many channels as rows and columns of patches.
    model = Patches(6, double_skip)
    names = [f"blocks.{k}" for k in range(2)]
    record = recognised(
        model,
        torch.rand(3, 2, *size),
        roles={"patch_embed": "lifting", "head": "projection"}
        | dict.fromkeys(names, "block")
        | {f"{name}.filter": "spectral" for name in names},
        space={"patch_embed": (2, 3), "head": (1, 2)}
        | {f"{name}{part}": (1, 2) for name in names for part in ("", ".filter", ".norm1", ".mlp", ".mlp.1")},
        blocks=[(name, [f"{name}.filter"], []) for name in names],
    )
    agree(record.blocks, [block.noted[-1] for block in model.blocks], space=(1, 2))
    # Shrinkage chooses coefficients by their size.
    shrinking = record.module("blocks.0.filter")
    assert shrinking.stats["truncated_energy_fraction"] is None
    assert "depends on the data" in shrinking.reasons["truncated_energy_fraction"]


class TwoCorners(nn.Module):
    """The spectral convolution of the original FNO: complex weights for two corners of the spectrum."""

    def __init__(self, channels, modes):
        super().__init__()
        self.modes, shape = modes, (channels, channels, modes, modes)
        self.weights1 = nn.Parameter(torch.rand(*shape, dtype=torch.cfloat) / channels**2)
        self.weights2 = nn.Parameter(torch.rand(*shape, dtype=torch.cfloat) / channels**2)

    def forward(self, x):
        m, spectrum = self.modes, torch.fft.rfft2(x)
        kept = torch.zeros(*x.shape[:-1], x.shape[-1] // 2 + 1, dtype=torch.cfloat)
        kept[:, :, :m, :m] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :m, :m], self.weights1)
        kept[:, :, -m:, :m] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, -m:, :m], self.weights2)
        return torch.fft.irfft2(kept, s=x.shape[-2:])


class Original(nn.Module):
    """forward(x, grid): channels-last at the ends, padded at the far ends of space, numbered layers."""

    def __init__(self, width, padding, grid_given=True):
        super().__init__()
        self.fc0, self.fc1, self.fc2 = nn.Linear(5, width), nn.Linear(width, 9), nn.Linear(9, 1)
        for k in range(3):
            setattr(self, f"conv{k}", TwoCorners(width, 3))
            setattr(self, f"w{k}", nn.Conv2d(width, width, 1))
        self.padding, self.grid_given, self.noted = padding, grid_given, Notes()

    def forward(self, x, grid=None):
        if grid is None:
            grid = self.grid(x)
        x = self.fc0(torch.cat((x, grid), dim=-1)).permute(0, 3, 1, 2)
        p = self.padding
        x = functional.pad(x, [0, p, 0, p]) if p else x
        for k in range(3):
            s, t = getattr(self, f"conv{k}")(x), getattr(self, f"w{k}")(x)
            rows, columns = s.shape[-2] - p, s.shape[-1] - p
            noted = {"s": s, "t": t, "x": x, "y": s + t}
            self.noted.append({name: part[..., :rows, :columns] for name, part in noted.items()})
            x = s + t
            if k < 2:
                x = functional.gelu(x)
        x = x[..., :-p, :-p] if p else x
        return self.fc2(functional.gelu(self.fc1(x.permute(0, 2, 3, 1)))).unsqueeze(-2)

    @staticmethod
    def grid(x):
        rows, columns = (torch.linspace(0, 1, size) for size in x.shape[1:3])
        return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).expand(len(x), -1, -1, -1)


@pytest.mark.parametrize("width", [7, 12])
@pytest.mark.parametrize("grid_given", [True, False])
@pytest.mark.parametrize("padding", [0, 2])
def test_the_original_fno_with_a_grid_and_padding(width, grid_given, padding, recognised, agree):
    # With a width of 12 there are as many channels as rows and columns.
    model, x = Original(width, padding), torch.rand(2, 12, 12, 3)
    batch = {"x": x, "grid": Original.grid(x)} if grid_given else x
    record = recognised(
        model,
        [batch],
        roles={"fc0": "lifting", "fc2": "projection"}
        | {f"conv{k}": "spectral" for k in range(3)}
        | {f"w{k}": "local" for k in range(3)},
        space={"fc0": (1, 2), "fc1": (1, 2), "fc2": (1, 2)}
        | {f"{name}{k}": (2, 3) for name in ("conv", "w") for k in range(3)},
        blocks=[(f"#{k}", [f"conv{k}"], [f"w{k}"]) for k in range(3)],
    )
    agree(record.blocks, model.noted[-3:])
    assert ft.map_model(model, [batch])["conv1"].modes == (6, 3)


class Tokens(nn.Module):
    """Blocks over tokens (B, H*W, C); only the spectral layer knows that they are a field."""

    class Spectral(nn.Module):
        def __init__(self, channels, sizes):
            super().__init__()
            self.inner, self.sizes = TwoCorners(channels, 2), sizes

        def forward(self, x):
            batch, _, channels = x.shape
            field = x.transpose(1, 2).reshape(batch, channels, *self.sizes)
            return self.inner(field).flatten(2).transpose(1, 2)

    class Block(nn.Module):
        def __init__(self, channels, sizes):
            super().__init__()
            self.norm, self.spectral = nn.LayerNorm(channels), Tokens.Spectral(channels, sizes)
            self.local, self.noted = nn.Linear(channels, channels), Notes()

        def forward(self, x):
            z = self.norm(x)
            s, t = self.spectral(z), self.local(z)
            y = x + functional.silu(s + t)
            self.noted.append({"s": s, "t": t, "x": x, "y": y, "entered": x, "left": y})
            return y

    def __init__(self, channels, sizes):
        super().__init__()
        self.embed, self.head = nn.Linear(2, channels), nn.Linear(channels, 1)
        self.layers = nn.ModuleList(Tokens.Block(channels, sizes) for _ in range(2))

    def forward(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


@pytest.mark.parametrize("sizes", [(6, 8), (6, 6)])
def test_blocks_over_flattened_space_are_measured(sizes, recognised, agree):
    model = Tokens(6, sizes)
    names = [f"layers.{k}" for k in range(2)]
    record = recognised(
        model,
        torch.rand(3, sizes[0] * sizes[1], 2),
        roles={"embed": "lifting", "head": "projection"}
        | dict.fromkeys(names, "block")
        | {f"{name}.spectral.inner": "spectral" for name in names}
        | {f"{name}.local": "local" for name in names},
        space={f"{name}.{part}": (1,) for name in names for part in ("local", "norm")}
        | {f"{name}.spectral.inner": (2, 3) for name in names}
        | {"embed": (1,), "head": (1,)},
        blocks=[(name, [f"{name}.spectral.inner"], [f"{name}.local"]) for name in names],
    )
    agree(record.blocks, [layer.noted[-1] for layer in model.layers], space=(1,))


def test_a_spectral_layer_that_unfolds_its_tokens_itself_truncates_the_field():
    class Inside(TwoCorners):
        def forward(self, x):
            field = x.unflatten(1, (6, 8)).permute(0, 3, 1, 2)
            return super().forward(field).flatten(2).transpose(1, 2)

    inside, x = Inside(4, 2), torch.rand(3, 48, 4)
    field = x.unflatten(1, (6, 8)).permute(0, 3, 1, 2)
    whole = TwoCorners(4, 2)
    whole.load_state_dict(inside.state_dict())
    found = ft.capture(nn.Sequential(nn.Identity(), inside), x).module("1")
    expected = ft.capture(nn.Sequential(nn.Identity(), whole), field).module("1")
    assert (found.spatial_axes, found.spectrum.sizes) == ((1,), (6, 8))
    for name in ("truncated_energy_fraction", "low_frequency_fraction", "dc_fraction", "one_sidedness"):
        assert found.stats[name] == pytest.approx(expected.stats[name], rel=1e-6), name


def test_tokens_of_another_number_have_no_spectrum_rather_than_a_wrong_one():
    class Square(TwoCorners):
        def forward(self, x):
            size = int(x.shape[1] ** 0.5)
            return super().forward(x.unflatten(1, (size, size)).permute(0, 3, 1, 2)).flatten(2).mT

    model = nn.Sequential(nn.Identity(), Square(4, 2))
    alone = ft.capture(model, torch.rand(3, 64, 4)).module("1")
    assert alone.stats["low_frequency_fraction"] > 0
    both = ft.capture(model, [torch.rand(3, 36, 4), torch.rand(3, 64, 4)]).module("1")
    assert both.stats["count"] == 3 * 4 * (36 + 64)
    assert both.stats["low_frequency_fraction"] is None
    assert both.reasons["low_frequency_fraction"]


class Unfolding(nn.Module):
    """Patches cut by `unfold`, through which axes cannot be followed, around a channels-last network."""

    def __init__(self, channels=6, patch=2):
        super().__init__()
        self.embed, self.head = nn.Linear(patch * patch, channels), nn.Linear(channels, patch * patch)
        self.weights = nn.Parameter(torch.randn(channels, channels, dtype=torch.cfloat) / channels)
        self.patch = patch
        self.filter = Filter(channels)

    def forward(self, x):
        rows, columns = (size // self.patch for size in x.shape[2:])
        cut = nn.functional.unfold(x, self.patch, stride=self.patch).transpose(1, 2)
        tokens = self.embed(cut).reshape(len(x), rows, columns, -1)
        tokens = self.head(tokens + self.filter(tokens)).flatten(1, 2).transpose(1, 2)
        return nn.functional.fold(tokens, x.shape[2:], self.patch, stride=self.patch)


class Filter(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(channels, channels, dtype=torch.cfloat) / channels)

    def forward(self, x):
        spectrum = torch.fft.rfft2(x, dim=(1, 2))
        return torch.fft.irfft2(spectrum @ self.weights, s=x.shape[1:3], dim=(1, 2))


def test_an_image_of_one_channel_around_a_channels_last_network_has_its_own_axes():
    record = ft.capture(Unfolding(), torch.rand(4, 1, 22, 26))
    assert record.module("filter").spatial_axes == (1, 2)
    assert (record.input.spatial_axes, record.outputs[0].spatial_axes) == ((2, 3), (2, 3))
    assert [finding for finding in ft.diagnose(record) if finding.rule == "bad_input"] == []
