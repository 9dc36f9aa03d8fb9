"""Gates, several local branches, space of one to four dimensions: pairs are found and measured."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from support.notes import Notes


class Modes(nn.Module):
    """A spectral convolution over the last `dims` axes, kept low in all of them, with two-sided rows."""

    def __init__(self, channels, modes, dims, dtype=torch.complex64, real=True):
        super().__init__()
        self.modes, self.axes, self.real = modes, tuple(range(-dims, 0)), real
        self.weight = nn.Parameter(torch.randn(channels, channels, *[modes] * dims, dtype=dtype) / channels)

    def forward(self, x):
        forward, inverse = (
            (torch.fft.rfftn, torch.fft.irfftn) if self.real else (torch.fft.fftn, torch.fft.ifftn)
        )
        spectrum = forward(x, dim=self.axes)
        kept = torch.zeros_like(spectrum)
        corner = (slice(None), slice(None), *[slice(self.modes)] * len(self.axes))
        kept[corner] = torch.einsum("bi...,io...->bo...", spectrum[corner], self.weight)
        return inverse(kept, s=x.shape[2:], dim=self.axes)


class Gated(nn.Module):
    """Bare parameters scale the branches and what comes of them, as in a residual operator with gates."""

    def __init__(self, channels, shape=()):
        super().__init__()
        self.spectral, self.local = Modes(channels, 3, 2), nn.Conv2d(channels, channels, 3, padding=1)
        self.spectral_gate = nn.Parameter(torch.full(shape, 0.3))
        self.local_gate = nn.Parameter(torch.full(shape, 0.8))
        self.out_gate = nn.Parameter(torch.full(shape, 0.1))
        self.noted = Notes()

    def forward(self, x):
        s = (
            torch.sigmoid(self.spectral_gate) * self.spectral(x)
            if self.spectral_gate.ndim
            else (self.spectral_gate * self.spectral(x))
        )
        t = self.local(x) * self.local_gate
        y = x + self.out_gate * functional.gelu(s + t)
        self.noted.append({"s": s, "t": t, "x": x, "y": y, "entered": x, "left": y})
        return y


def ends(*middle, width=4, dims=2, dtype=None):
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    return nn.Sequential(conv(1, width, 1, dtype=dtype), *middle, conv(width, 1, 1, dtype=dtype))


@pytest.fixture
def fields():
    return torch.rand(3, 1, 8, 10) + torch.arange(3.0)[:, None, None, None]


@pytest.mark.parametrize("shape", [(), (4, 1, 1)])
def test_gates_that_are_bare_parameters_count_with_their_branch(shape, fields, recognised, agree):
    model = ends(Gated(4, shape), Gated(4, shape))
    record = recognised(
        model,
        fields,
        roles={"0": "lifting", "3": "projection"}
        | dict.fromkeys("12", "block")
        | {f"{k}.{role}": role for k in "12" for role in ("spectral", "local")},
        space={"0": (2, 3), "1": (2, 3), "1.spectral": (2, 3), "2.local": (2, 3)},
        blocks=[(k, [f"{k}.spectral"], [f"{k}.local"]) for k in "12"],
    )
    agree(record.blocks, [model[1].noted[-1], model[2].noted[-1]])


def test_a_gate_of_zero_reads_zero(fields):
    model = ends(Gated(4), Gated(4))
    model[1].spectral_gate.data.zero_()
    model[2].local_gate.data.zero_()
    first, second = ft.capture(model, fields).blocks
    assert (first.stats["spectral_share"], first.stats["spectral_local_ratio"]) == (0.0, 0.0)
    assert second.stats["spectral_share"] == 1.0
    assert second.reasons["spectral_local_ratio"] == "the local branch is constant in space"
    model[1].out_gate.data.zero_()
    assert ft.capture(model, fields).blocks[0].stats["update_ratio"] == 0.0


class SmallUNet(nn.Module):
    """Down and up again once, with a skip."""

    def __init__(self, channels):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(channels, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.LeakyReLU())
        self.up = nn.ConvTranspose2d(6, channels, 4, 2, 1)
        self.merge = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, x):
        return self.merge(torch.cat([x, self.up(self.down(x))], 1))


class ThreeBranches(nn.Module):
    """Numbered spectral and 1x1 layers as in the U-FNO, with a small U-Net beside them in the later ones."""

    def __init__(self, channels=4, depth=3, with_unet=(1, 2)):
        super().__init__()
        self.fc0, self.fc1 = nn.Linear(3, channels), nn.Linear(channels, 1)
        self.convs = nn.ModuleList(Modes(channels, 3, 2) for _ in range(depth))
        self.ws = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in range(depth))
        self.unets = nn.ModuleDict({str(k): SmallUNet(channels) for k in with_unet})
        self.noted = Notes()

    def forward(self, x):
        x = self.fc0(x).permute(0, 3, 1, 2)
        batch, channels, rows, columns = x.shape
        for k, (conv, w) in enumerate(zip(self.convs, self.ws, strict=True)):
            s = conv(x)
            t = w(x.reshape(batch, channels, -1)).view(batch, channels, rows, columns)
            if str(k) in self.unets:
                u = self.unets[str(k)](x)
                self.noted.append({"s": s, "t": t + u, "x": x, "y": s + t + u})
                x = functional.relu(s + t + u)
            else:
                self.noted.append({"s": s, "t": t, "x": x, "y": s + t})
                x = functional.relu(s + t)
        return self.fc1(x.permute(0, 2, 3, 1))


def test_a_unet_and_a_pointwise_layer_are_both_local(recognised, agree):
    model = ThreeBranches()
    local = [["ws.0"], ["ws.1", "unets.1"], ["ws.2", "unets.2"]]
    record = recognised(
        model,
        torch.rand(2, 8, 12, 3),
        roles={"fc0": "lifting", "fc1": "projection"}
        | {f"convs.{k}": "spectral" for k in range(3)}
        | {name: "local" for names in local for name in names},
        space={"fc0": (1, 2), "fc1": (1, 2), "convs.0": (2, 3), "unets.1": (2, 3), "ws.0": (2,)},
        blocks=[(f"#{k}", [f"convs.{k}"], names) for k, names in enumerate(local)],
    )
    agree(record.blocks, model.noted[-3:])


class Pair(nn.Module):
    """y = x + act(s + t) for fields of any dimension; real or complex."""

    def __init__(self, spectral, local, act=functional.gelu):
        super().__init__()
        self.spectral, self.local, self.act, self.noted = spectral, local, act, Notes()

    def forward(self, x):
        s, t = self.spectral(x), self.local(x)
        y = x + self.act(s + t)
        self.noted.append({"s": s, "t": t, "x": x, "y": y, "entered": x, "left": y})
        return y


class PointwiseInTime(nn.Module):
    """A 1x1 layer for fields with more axes than torch has convolutions for."""

    def __init__(self, channels):
        super().__init__()
        self.inner = nn.Linear(channels, channels)

    def forward(self, x):
        return self.inner(x.movedim(1, -1)).movedim(-1, 1)


PAIR = {"spectral": "spectral", "local": "local", "": "block"}


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_operators_in_one_two_and_three_dimensions(dims, recognised, agree):
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    model = ends(*[Pair(Modes(4, 2, dims), conv(4, 4, 1)) for _ in range(2)], dims=dims)
    space = tuple(range(2, dims + 2))
    record = recognised(
        model,
        torch.rand(2, 1, *(9, 8, 7)[:dims]),
        roles={"0": "lifting", "3": "projection"}
        | {f"{k}.{part}".rstrip("."): role for k in "12" for part, role in PAIR.items()},
        space=dict.fromkeys(("0", "1", "1.spectral", "2.local", "3"), space),
        blocks=[(k, [f"{k}.spectral"], [f"{k}.local"]) for k in "12"],
    )
    agree(record.blocks, [model[1].noted[-1], model[2].noted[-1]], space)


def test_three_dimensions_and_time_beside_a_pointwise_layer(recognised, agree):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.lift, self.project = nn.Linear(1, 4), nn.Linear(4, 1)
            self.pair = Pair(Modes(4, 2, 4), PointwiseInTime(4))

        def forward(self, x):
            return self.project(self.pair(self.lift(x).movedim(-1, 1)).movedim(1, -1))

    model = Network()
    record = recognised(
        model,
        torch.rand(2, 5, 4, 6, 3, 1),
        roles={"lift": "lifting", "project": "projection", "pair": "block"}
        | {"pair.spectral": "spectral", "pair.local": "local"},
        space={"lift": (1, 2, 3, 4), "pair.spectral": (2, 3, 4, 5), "pair.local": (2, 3, 4, 5)},
        blocks=[("pair", ["pair.spectral"], ["pair.local"])],
    )
    agree(record.blocks, [model.pair.noted[-1]], (2, 3, 4, 5))


def modulus_relu(z):
    return functional.relu(z.abs() - 0.1) * torch.sgn(z)


def test_complex_fields_are_measured_with_both_parts(recognised, agree):
    pairs = [
        Pair(Modes(4, 2, 2, real=False), nn.Conv2d(4, 4, 1, dtype=torch.complex64), modulus_relu)
        for _ in range(2)
    ]
    model = ends(*pairs, dtype=torch.complex64)
    record = recognised(
        model,
        torch.randn(3, 1, 8, 7, dtype=torch.complex64),
        roles={"0": "lifting", "3": "projection"}
        | {f"{k}.{part}".rstrip("."): role for k in "12" for part, role in PAIR.items()},
        space={"1.spectral": (2, 3), "2.local": (2, 3)},
        blocks=[(k, [f"{k}.spectral"], [f"{k}.local"]) for k in "12"],
    )
    agree(record.blocks, [model[1].noted[-1], model[2].noted[-1]])
    assert {m.values_of for m in record.modules if m.dtype == "complex64"} == {"|z|"}
    assert record.module("1.spectral").stats["one_sidedness"] < 0.1


class InFloat32(nn.Module):
    """Transforms in float32 whatever the network's precision, and returns that precision."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return self.inner(x.float()).to(x.dtype)


@pytest.mark.parametrize("precision", ["bfloat16", "autocast", "float16", "float64"])
def test_networks_in_other_precisions_are_measured_in_their_own_rounding(
    precision, fields, recognised, agree
):
    dtype = torch.bfloat16 if precision == "autocast" else getattr(torch, precision)
    model = ends(*[Pair(InFloat32(Modes(4, 3, 2)), nn.Conv2d(4, 4, 1)) for _ in range(2)])
    if precision != "autocast":
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        record = recognised(
            model,
            fields if precision == "autocast" else fields.to(dtype),
            roles={"0": "lifting", "3": "projection"}
            | dict.fromkeys("12", "block")
            | {f"{k}.spectral.inner": "spectral" for k in "12"}
            | {f"{k}.local": "local" for k in "12"},
            space={"1.spectral.inner": (2, 3), "2.local": (2, 3)},
            blocks=[(k, [f"{k}.spectral.inner"], [f"{k}.local"]) for k in "12"],
        )
    agree(record.blocks, [model[1].noted[-1], model[2].noted[-1]])
    assert record.module("1.local").dtype == str(dtype).removeprefix("torch.")
