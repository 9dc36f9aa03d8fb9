"""Fields that a network pads and crops again are measured without the padding."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from fno_telemetry.architectures.layers import SpectralConvolution
from fno_telemetry.statistics.activation import Activation, Layout
from support.notes import Notes


class Low(nn.Module):
    def forward(self, x):
        spectrum = torch.fft.rfft2(x)
        kept = torch.zeros_like(spectrum)
        kept[..., :4, :4] = spectrum[..., :4, :4]
        return torch.fft.irfft2(kept, s=x.shape[-2:])


class Padded(nn.Module):
    """One block between a padding and a crop; `amounts` are those of the last axis, then of the other."""

    def __init__(self, amounts, crop=None, mode="constant"):
        super().__init__()
        self.lift, self.spectral, self.local = nn.Conv2d(1, 4, 1), Low(), nn.Conv2d(4, 4, 1)
        self.project = nn.Conv2d(4, 1, 1)
        self.amounts, self.crop, self.mode, self.noted = amounts, crop, mode, Notes()

    def forward(self, x):
        left, right, above, below = self.amounts(x) if callable(self.amounts) else self.amounts
        x = functional.pad(self.lift(x), (left, right, above, below), mode=self.mode)
        valid = (..., slice(above, x.shape[-2] - below), slice(left, x.shape[-1] - right))
        s, t = self.spectral(x), self.local(x)
        y = x + (s + t).tanh()
        self.noted.append({"s": s, "t": t, "x": x, "y": y, "valid": valid})
        return self.project(y[self.crop or valid])


def without_padding(model, number=-1):
    noted = dict(model.noted[number])
    valid = noted.pop("valid")
    return {name: part[valid] if name in "stxy" else part for name, part in noted.items()}


AMOUNTS = [(0, 3, 0, 2), (2, 2, 1, 1), (3, 0, 0, 0), (1, 2, 4, 0)]


@pytest.fixture
def fields():
    return torch.rand(3, 1, 12, 10) + torch.arange(3.0)[:, None, None, None]


@pytest.mark.parametrize("mode", ["constant", "circular", "replicate"])
@pytest.mark.parametrize("amounts", AMOUNTS)
def test_a_block_between_padding_and_crop_is_measured_without_the_padding(amounts, mode, fields, agree):
    model = Padded(amounts, mode=mode)
    record = ft.capture(model, fields)
    agree(record.blocks, [without_padding(model)])
    module, valid = record.module("spectral"), without_padding(model)["s"]
    assert module.stats["count"] == valid.numel()
    assert module.stats["rms"] == pytest.approx(float(valid.double().square().mean().sqrt()), rel=1e-6)
    assert module.spectrum.sizes == (12, 10)
    assert module.shape == tuple(model.noted[-1]["s"].shape)
    row = record.layers["spectral/mean"]
    assert row == pytest.approx([float(valid.abs().double().mean())], rel=1e-6)


def test_what_a_spectral_layer_truncates_is_of_the_padded_field_that_it_transforms(fields):
    model = Padded((0, 3, 0, 2))
    record = ft.capture(model, fields)
    energy = abs(np.fft.fft2(model.noted[-1]["x"].double().numpy())) ** 2
    energy[..., 0, 0] = 0
    rows, columns = (np.rint(np.fft.fftfreq(size) * size) for size in energy.shape[-2:])
    quarter = ((rows >= 0) & (rows < 4))[:, None] & ((columns >= 0) & (columns < 4))
    mirrored = quarter[-np.arange(len(rows)) % len(rows)][:, -np.arange(len(columns)) % len(columns)]
    half = (np.arange(len(columns)) <= len(columns) // 2)[None]
    cut = energy[..., ~np.where(half, quarter, mirrored)].sum() / energy.sum()
    assert record.module("spectral").stats["truncated_energy_fraction"] == pytest.approx(cut, rel=1e-5)


def test_padding_in_proportion_is_left_out_at_every_resolution(fields, agree):
    model = Padded(lambda x: (0, x.shape[-1] // 4, x.shape[-2] // 4, x.shape[-2] // 4))
    batches = [fields, torch.rand(3, 1, 16, 20)]
    for batch in batches:
        agree(ft.capture(model, batch).blocks, [without_padding(model)])
    record = ft.capture(model, batches)
    assert record.module("spectral").stats["count"] == 3 * 4 * (12 * 10 + 16 * 20)


def test_each_block_may_pad_in_its_own_way(fields, agree):
    class EachPads(nn.Module):
        """Blocks that pad by as much in all, on different sides, and crop twice what they made."""

        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Padded(amounts) for amounts in [(2, 0, 1, 1), (1, 1, 2, 0)])

        def forward(self, x):
            for block in self.blocks:
                x = block(x) + block(x * 2)
            return x

    def note(module, args, output):
        module.noted[-1].update(entered=args[0], left=output)

    model = EachPads()
    for block in model.blocks:
        block.register_forward_hook(note)
    record = ft.capture(model, fields)
    # The first block runs twice, then the second one.
    noted = [without_padding(block, number) for block in model.blocks for number in (-2, -1)]
    assert [(block.name, block.call) for block in record.blocks] == [
        (f"blocks.{k}", call) for k in range(2) for call in range(2)
    ]
    agree(record.blocks, noted)


def test_padding_a_spectrum_is_no_padding_of_space(fields):
    class Refilled(nn.Module):
        """Keeps modes by a slice, and fills the spectrum up again by padding it."""

        def forward(self, x):
            spectrum = torch.fft.fft2(x)
            rows, columns = spectrum.shape[-2:]
            kept = spectrum[..., :4, :5]
            return torch.fft.ifft2(functional.pad(kept, (0, columns - 5, 0, rows - 4))).real

    model = nn.Sequential(nn.Conv2d(1, 4, 1), Refilled(), Refilled(), Refilled())
    record = ft.capture(model, fields)
    for module in record.modules:
        assert (module.stats["count"], module.spectrum.sizes) == (3 * 4 * 120, (12, 10))


@pytest.mark.parametrize("crop", [(...,), (..., slice(1), slice(2))])
def test_what_is_not_cropped_as_it_was_padded_is_measured_whole(crop, fields):
    model = Padded((0, 3, 0, 2), crop=crop)
    record = ft.capture(model, fields)
    assert record.module("spectral").stats["count"] == 3 * 4 * 14 * 13


@pytest.mark.parametrize("padding", [((0, 2), (1, 0)), ((1, 1), (3, 2))])
def test_an_activation_without_its_margins_is_that_of_the_slice(padding):
    x = torch.randn(2, 3, 9, 8)
    (above, below), (left, right) = padding
    inner = x[:, :, above : 9 - below, left : 8 - right]
    found = Activation(x, Layout(0, 1, (2, 3), padding=padding))
    assert torch.equal(found.field, Activation(inner, Layout(0, 1, (2, 3))).field)
    assert found.count == inner.numel()


def test_an_activation_of_flattened_space_is_that_of_the_field():
    x = torch.randn(2, 6, 8, 3)
    found = Activation(x.flatten(1, 2), Layout(0, 2, (1,), unflattened=((6, 8),)))
    assert torch.equal(found.field, Activation(x, Layout(0, 3, (1, 2))).field)
    assert found.sizes == (6, 8)


class SeveralLocal(nn.Module):
    """Padded at the ends; a pointwise layer over flattened space and a convolution are both local."""

    def __init__(self):
        super().__init__()
        self.spectral = SpectralConvolution(4, 4, 3)
        self.flat, self.wide = nn.Conv1d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.noted = Notes()

    def forward(self, x):
        y = functional.pad(x, (0, 3, 2, 4))
        s, t = self.spectral(y), self.flat(y.flatten(2)).view(*y.shape) + self.wide(y)
        left = functional.gelu(s + t)[..., 2:-4, :-3]
        inside = {name: part[..., 2:-4, :-3] for name, part in (("s", s), ("t", t))}
        self.noted.append({**inside, "entered": x, "left": left})
        return left


def test_padding_is_left_out_of_flattened_space_and_of_sums_of_local_branches(agree):
    model = nn.Sequential(nn.Conv2d(1, 4, 1), SeveralLocal())
    record = ft.capture(model, torch.rand(2, 1, 10, 12))
    agree(record.blocks, model[1].noted[-1:])
    assert [m.stats["count"] for m in record.modules if m.name.startswith("1.")] == [2 * 4 * 10 * 12] * 3
