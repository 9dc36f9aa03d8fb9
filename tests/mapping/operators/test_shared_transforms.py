"""Transforms in modules of their own that all blocks share, as in spherical operators."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from support.notes import Notes


class Forward(nn.Module):
    """A Fourier transform along circles of latitude and a matrix along the meridians."""

    def __init__(self, latitudes, kept):
        super().__init__()
        self.kept = kept
        self.register_buffer("matrix", torch.randn(kept, latitudes) / latitudes)

    def forward(self, x):
        spectrum = torch.fft.rfft(x, dim=-1, norm="forward")[..., : self.kept]
        return torch.einsum("lr,bcrm->bclm", self.matrix.to(spectrum.dtype), spectrum)


class Inverse(nn.Module):
    def __init__(self, latitudes, longitudes, kept):
        super().__init__()
        self.longitudes = longitudes
        self.register_buffer("matrix", torch.randn(latitudes, kept) / kept)

    def forward(self, spectrum):
        field = torch.einsum("rl,bclm->bcrm", self.matrix.to(spectrum.dtype), spectrum)
        return torch.fft.irfft(field, n=self.longitudes, dim=-1, norm="forward")


class SpectralConv(nn.Module):
    """Weights of its own between transforms that belong to the network; returns what went in as well."""

    def __init__(self, sht, isht, channels, kept):
        super().__init__()
        self.sht, self.isht = sht, isht
        self.weight = nn.Parameter(torch.randn(channels, channels, kept, dtype=torch.cfloat) / channels)

    def forward(self, x):
        spectrum = torch.einsum("bilm,iol->bolm", self.sht(x), self.weight)
        return self.isht(spectrum), x


class Block(nn.Module):
    """Filter, an inner skip beside it, an MLP at every point, an outer skip around all."""

    def __init__(self, sht, isht, channels, kept):
        super().__init__()
        self.filter = SpectralConv(sht, isht, channels, kept)
        self.inner_skip, self.outer_skip = nn.Conv2d(channels, channels, 1), nn.Identity()
        self.mlp = nn.Sequential(nn.Conv2d(channels, 8, 1), nn.GELU(), nn.Conv2d(8, channels, 1))
        self.noted = Notes()

    def forward(self, x):
        s, residual = self.filter(x)
        t = self.inner_skip(residual)
        left = self.mlp(functional.gelu(s + t)) + self.outer_skip(residual)
        self.noted.append({"s": s, "t": t, "x": x, "y": left, "entered": x, "left": left})
        return left


class Spherical(nn.Module):
    def __init__(self, channels=5, latitudes=8, longitudes=12, kept=4):
        super().__init__()
        self.sht, self.isht = Forward(latitudes, kept), Inverse(latitudes, longitudes, kept)
        self.encoder, self.decoder = nn.Conv2d(2, channels, 1), nn.Conv2d(channels, 1, 1)
        self.blocks = nn.ModuleList(Block(self.sht, self.isht, channels, kept) for _ in range(2))

    def forward(self, x):
        x = self.encoder(x)
        for block in self.blocks:
            x = block(x)
        return self.decoder(x)


def test_the_layer_that_calls_shared_transforms_is_the_spectral_one(recognised, agree):
    model = Spherical()
    blocks = [f"blocks.{k}" for k in range(2)]
    record = recognised(
        model,
        torch.rand(3, 2, 8, 12),
        roles={"encoder": "lifting", "decoder": "projection"}
        | dict.fromkeys(blocks, "block")
        | {f"{block}.filter": "spectral" for block in blocks}
        | {f"{block}.inner_skip": "local" for block in blocks},
        space={f"{block}.{part}": (2, 3) for block in blocks for part in ("filter", "inner_skip", "mlp")},
        blocks=[(block, [f"{block}.filter"], [f"{block}.inner_skip"]) for block in blocks],
    )
    agree(record.blocks, [block.noted[-1] for block in model.blocks])


def test_the_real_spherical_operator_of_torch_harmonics(recognised):
    reason = "torch-harmonics is not installed: pip install torch-harmonics"
    models = pytest.importorskip("torch_harmonics.examples.models", reason=reason)
    sizes = {"img_size": (16, 32), "scale_factor": 2, "in_chans": 2, "out_chans": 1}
    model = models.SphericalFourierNeuralOperator(**sizes, embed_dim=6, num_layers=4)
    x = torch.rand(2, 2, 16, 32)
    model_map = ft.map_model(model, x)
    spectral = [f"blocks.{k}.global_conv" for k in range(4)]
    assert {m.name: m.role for m in model_map.modules if m.role not in ("other", "activation")} == {
        "encoder": "lifting",
        "decoder": "projection",
        "blocks.1": "block",
        "blocks.2": "block",
        **dict.fromkeys(spectral, "spectral"),
    }
    assert {model_map[name].spatial_axes for name in spectral} == {(2, 3)}
    # The first and the last block add what their own transforms made of the input, at another resolution.
    record = ft.capture(model, x)
    assert [(b.name, b.spectral, b.local) for b in record.blocks] == [
        (f"blocks.{k}", (f"blocks.{k}.global_conv",), ()) for k in (1, 2)
    ]
    assert all(block.stats["update_ratio"] > 0 for block in record.blocks)
    assert [warning.split(":")[0] for warning in record.warnings] == ["blocks.0.global_conv and 1 more"]
