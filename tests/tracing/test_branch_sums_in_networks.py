"""Blocks in whole networks: repeated, stacked, complex, in half precision, cut off, or not there at all."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from fno_telemetry.architectures.layers import SpectralConvolution
from support.both_ways import capture_both_ways
from support.notes import Notes


class Block(nn.Module):
    """y = x + gelu(s + t), with every operand noted."""

    def __init__(self, spectral=None, local=None):
        super().__init__()
        self.spectral = spectral or SpectralConvolution(4, 4, 3)
        self.local = local or nn.Conv2d(4, 4, 3, padding=1)
        self.noted = Notes()

    def forward(self, x):
        s, t = self.spectral(x), self.local(x)
        total = s + t
        y = x + (total * total.abs() if total.is_complex() else functional.gelu(total))
        self.noted.append({"s": s, "t": t, "x": x, "y": y})
        return y


class TwoSided(nn.Module):
    """A spectral convolution as it should be: low frequencies of both signs; 1-D, 2-D or 3-D, real or not."""

    def __init__(self, channels, modes, dims, is_complex=False, norm="ortho"):
        super().__init__()
        dtype = torch.complex64
        self.weights = nn.Parameter(torch.randn(channels, channels, dtype=dtype) / channels)
        self.modes, self.axes, self.is_complex, self.norm = modes, tuple(range(-dims, 0)), is_complex, norm

    def forward(self, x):
        forward, inverse = (
            (torch.fft.fftn, torch.fft.ifftn) if self.is_complex else (torch.fft.rfftn, torch.fft.irfftn)
        )
        spectrum = forward(x, dim=self.axes, norm=self.norm)
        kept = self.kept(x.shape).to(x.device)
        spectrum = torch.einsum("bi...,io->bo...", spectrum * kept, self.weights)
        return inverse(spectrum, s=x.shape[2:], dim=self.axes, norm=self.norm)

    def kept(self, shape):
        """Mark |k| < modes along every axis, and 0 <= k < modes along the halved one."""
        mask = torch.ones((), dtype=torch.bool)
        for number, axis in enumerate(self.axes):
            last = number == len(self.axes) - 1 and not self.is_complex
            k = (torch.fft.rfftfreq if last else torch.fft.fftfreq)(shape[axis]) * shape[axis]
            mask = mask.unsqueeze(-1) & (k.abs().round() < self.modes)
        return mask


def agrees(stats, expected, rel=1e-5):
    assert {**stats} == pytest.approx(expected, rel=rel, abs=1e-6)


@pytest.fixture(autouse=True)
def _both_ways(monkeypatch):
    """Every capture gives the same numbers as planned, and followed function by function."""
    monkeypatch.setattr(ft, "capture", capture_both_ways(ft.capture))


@pytest.fixture
def fields():
    return torch.rand(3, 4, 8, 10) + torch.arange(3.0)[:, None, None, None]


def test_a_partner_of_another_forward_is_never_used(fields, branch_numbers):
    class Changing(nn.Module):
        """Runs the block for fields of ordinary size only, and its branches apart for others."""

        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, x):
            if 0.1 < x.max() < 10:
                return self.block(x)
            return self.block.spectral(x) if x.max() > 1 else self.block.local(x)

    model = Changing()
    record = ft.capture(model, [{"x": fields * k} for k in (1, 1000, 0.001)])
    agrees(record.blocks[0].stats, branch_numbers(**model.block.noted[-1]))
    assert len(record.layers["block/spectral_local_ratio"]) == 1
    assert record.module("block.spectral").stats["count"] == 2 * fields.numel()


def test_a_block_called_twice_has_a_record_for_each_call(fields, branch_numbers):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, x):
            return self.block(self.block(x))

    model = Twice()
    blocks = ft.capture(model, fields).blocks
    assert [(block.name, block.call) for block in blocks] == [("block", 0), ("block", 1)]
    for block, noted in zip(blocks, model.block.noted[-2:], strict=True):
        agrees(block.stats, branch_numbers(**noted))


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("called", [1, 2])
def test_two_blocks_in_one_forward_are_numbered(residual, called, fields, branch_numbers):
    class Stacked(nn.Module):
        """Like an FNO whose blocks are no modules of their own."""

        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(SpectralConvolution(4, 4, 3) for _ in range(2))
            self.skips = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(2))
            self.noted = Notes()

        def forward(self, x):
            for conv, skip in zip(self.convs, self.skips, strict=True):
                s, t = conv(x), skip(x)
                y = functional.gelu(s + t)
                total = x + y if residual else s + t
                self.noted.append({"s": s, "t": t, "x": x, "y": total})
                x = x + y if residual else y
            return x

    stack = Stacked()
    blocks = ft.capture(nn.Sequential(*[stack] * called), fields).blocks
    assert [(b.name, b.call, b.spectral, b.local) for b in blocks] == [
        (f"0#{k}", call, (f"0.convs.{k}",), (f"0.skips.{k}",)) for call in range(called) for k in range(2)
    ]
    for block, noted in zip(blocks, stack.noted[-2 * called :], strict=True):
        agrees(block.stats, branch_numbers(**noted))


def test_a_spectral_layer_called_many_times_by_one_module_is_told_apart(fields, branch_numbers):
    class Shared(nn.Module):
        """One spectral and one local layer for all blocks."""

        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, x):
            for _ in range(2):
                s, t = self.block.spectral(x), self.block.local(x)
                y = functional.gelu(s + t)
                self.block.noted.append({"s": s, "t": t, "x": x, "y": y})
                x = y
            return x

    model = nn.Sequential(Shared())
    blocks = ft.capture(model, fields).blocks
    assert [(block.name, block.call) for block in blocks] == [("0#0", 0), ("0#1", 0)]
    for block, noted in zip(blocks, model[0].block.noted[-2:], strict=True):
        expected = branch_numbers(**noted)
        for key in ("spectral_local_ratio", "spectral_share", "branch_cosine", "branch_coherence"):
            assert block.stats[key] == pytest.approx(expected[key], rel=1e-5)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("is_complex", [False, True])
def test_real_and_complex_blocks_in_one_two_and_three_dimensions(dims, is_complex, branch_numbers):
    dtype = torch.complex64 if is_complex else torch.float32
    local = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims](4, 4, 1, dtype=dtype)
    model = nn.Sequential(Block(TwoSided(4, 2, dims, is_complex), local))
    x = torch.randn((2, 4, 9, 8, 7)[: dims + 2], dtype=dtype)
    record = ft.capture(model, x)
    agrees(record.blocks[0].stats, branch_numbers(**model[0].noted[-1]))
    assert record.module("0.spectral").spatial_axes == tuple(range(2, dims + 2))
    assert record.module("0.spectral").values_of == ("|z|" if is_complex else "x")
    assert record.errors == ()


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_blocks_are_measured_as_they_happened(autocast, fields, branch_numbers):
    model = nn.Sequential(Block())
    if autocast:
        with torch.autocast("cpu", torch.bfloat16):
            record = ft.capture(model, fields)
        assert record.module("0.local").dtype == "bfloat16"
    else:
        model[0].local.to(torch.bfloat16)
        record = ft.capture(model, fields.to(torch.bfloat16))
        assert {module.dtype for module in record.modules} == {"bfloat16"}
    agrees(record.blocks[0].stats, branch_numbers(**model[0].noted[-1]))
    assert record.errors == ()


@pytest.mark.parametrize("in_place", [True, False])
def test_an_input_that_the_block_overwrites_gives_no_gain(in_place, fields):
    class Overwriting(Block):
        def forward(self, x):
            s, t = self.spectral(x), self.local(x)
            x = x.add_(s + t) if in_place else x.add(s + t)
            return x * 2

    block = ft.capture(nn.Sequential(Overwriting()), fields.clone()).blocks[0]
    if in_place:
        assert block.stats["gain"] is None
        assert block.reasons["gain"] == "the block overwrites its input in place"
    else:
        assert block.stats["gain"] > 0
    assert block.stats["update_ratio"] > 0


def test_a_scaled_skip_is_not_passed_off_as_the_blocks_input(fields):
    class Scaled(Block):
        def forward(self, x):
            return 0.5 * x + functional.gelu(self.spectral(x) + self.local(x))

    block = ft.capture(nn.Sequential(Scaled()), fields).blocks[0]
    assert block.stats["spectral_share"] > 0
    assert block.stats["update_ratio"] is None
    assert block.reasons["update_ratio"] == "no sum with the block's own input was found"


def test_a_sum_that_cannot_be_seen_gives_no_numbers(fields):
    class Hidden(Block):
        def forward(self, x):
            return x + torch.stack([self.spectral(x), self.local(x)]).sum(0)

    block = ft.capture(nn.Sequential(Hidden()), fields).blocks[0]
    missing = {key for key, value in block.stats.items() if value is None}
    assert missing == {"spectral_local_ratio", "spectral_share", "branch_cosine", "branch_coherence"}
    assert {block.reasons[key] for key in missing} == {"no sum of a spectral and a local branch was found"}
    assert block.stats["update_ratio"] > 0


@pytest.mark.parametrize(
    "spectral", [SpectralConvolution(4, 4, 3), TwoSided(4, 3, 2), TwoSided(4, 3, 2, norm=None)]
)
@pytest.mark.parametrize("shape", [(8, 10), (9, 7)])
def test_the_truncated_fraction_is_that_of_numpy(spectral, shape):
    x = torch.randn(3, 4, *shape) + 5
    record = ft.capture(nn.Sequential(spectral), x)
    energy = abs(np.fft.fft2(x.double().numpy())) ** 2
    energy[..., 0, 0] = 0
    rows, columns = shape
    p, q = (np.rint(np.fft.fftfreq(size) * size) for size in shape)
    if isinstance(spectral, SpectralConvolution):
        # One quarter of the half spectrum passes, and with it its mirror image.
        half = (np.arange(rows) < 3)[:, None] & (np.arange(columns) < 3)
        mirrored = half[-np.arange(rows) % rows][:, -np.arange(columns) % columns]
        # What irfft2 reads of the columns beyond the half is their mirror image.
        inner = (np.arange(columns) <= columns // 2)[None]
        kept = np.where(inner, half, mirrored)
    else:
        kept = (abs(p) < 3)[:, None] & (abs(q) < 3)
    expected = energy[..., ~kept].sum() / energy.sum()
    assert record.module("0").stats["truncated_energy_fraction"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["cnn", "mixer"])
def test_a_network_without_fourier_transforms_has_no_block_and_no_spectral_role(kind):
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(6)
            self.tokens = nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 16))
            self.channels = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6))

        def forward(self, x):
            x = x + self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
            return x + self.channels(self.norm(x))

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return x + functional.relu(self.first(x) + self.second(x))

    model = nn.Sequential(Mixer(), Mixer()) if kind == "mixer" else nn.Sequential(Residual(), nn.MaxPool2d(2))
    x = torch.rand(3, 16, 6) if kind == "mixer" else torch.rand(3, 2, 8, 8)
    record = ft.capture(model, x)
    leaves = {name for name, module in model.named_modules() if not list(module.children())}
    called = {module.name for module in record.modules}
    assert leaves <= called
    assert record.blocks == ()
    assert {module.role for module in record.modules} <= {"activation", "norm", "other"}
    assert all(module.stats["rms"] > 0 for module in record.modules)
    assert record.errors == ()


class Coupled(nn.Module):
    """A block whose result is added to another half of the channels, outside of the block."""

    def __init__(self):
        super().__init__()
        self.block = Branches()
        self.second = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GELU())

    def forward(self, x):
        a, b = x.chunk(2, 1)
        a = a + self.block(b)
        return torch.cat([a, b + self.second(a)], 1)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.spectral, self.local = SpectralConvolution(4, 4, 3), nn.Conv2d(4, 4, 1)
        self.noted = Notes()

    def forward(self, x):
        y = 3 * (self.spectral(x) + self.local(x))
        self.noted.append({"x": x, "y": y})
        return y


def test_the_gain_of_a_module_is_its_own_whatever_is_added_outside_of_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 1), Coupled())
    record = ft.capture(model, torch.rand(3, 1, 8, 10))
    x, y = (model[1].block.noted[-1][name].double().numpy() for name in ("x", "y"))
    assert record.blocks[0].name == "1.block"
    assert record.blocks[0].stats["gain"] == pytest.approx(((y**2).mean() / (x**2).mean()) ** 0.5, rel=1e-6)
