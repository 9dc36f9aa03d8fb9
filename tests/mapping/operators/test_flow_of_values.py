"""Structures are read off what values come from, also where code between two functions cannot be followed."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from support.notes import Notes

WIDTH, MODES = 6, 4
SPACE = (2,)


def script(function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(function)


@script
def scripted(spectrum: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bim,iom->bom", spectrum, weights)


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, spectrum, weights):
        return (spectrum.unsqueeze(2) * weights).sum(1)


def through_numpy(spectrum, weights):
    product = np.einsum("bim,iom->bom", spectrum.numpy(), weights.detach().numpy())
    return torch.from_numpy(product)


PRODUCTS = {
    "scripted": scripted,
    "custom autograd": Product.apply,
    "NumPy": through_numpy,
    "compiled": torch.compile(lambda f, w: torch.einsum("bim,iom->bom", f, w), backend="eager"),
    "vmap": lambda f, w: torch.vmap(lambda one: torch.einsum("im,iom->om", one, w))(f),
}


class Spectral(nn.Module):
    def __init__(self, product=scripted, own_buffer=True):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(WIDTH, WIDTH, MODES, dtype=torch.cfloat) / WIDTH)
        self.product, self.own_buffer = product, own_buffer

    def forward(self, x):
        spectrum = torch.fft.rfft(x)
        kept = self.product(spectrum[..., :MODES], self.weights)
        if self.own_buffer:
            out = torch.zeros(spectrum.shape, dtype=spectrum.dtype)
        else:
            out = spectrum.new_zeros(spectrum.shape)
        out[..., :MODES] = kept
        return torch.fft.irfft(out, n=x.shape[-1])


def pointwise(width=WIDTH):
    return nn.Conv1d(width, width, 1)


class Operator(nn.Module):
    """Lifts, runs `body` and projects; `layers` are the modules that the body uses."""

    def __init__(self, body, **layers):
        super().__init__()
        self.lift, self.project = nn.Conv1d(1, WIDTH, 1), nn.Conv1d(WIDTH, 1, 1)
        self.body, self.noted = body, Notes()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def note(self, **tensors):
        self.noted.append({name: tensor.clone() for name, tensor in tensors.items()})

    def forward(self, x, *more):
        return self.project(self.body(self, self.lift(x), *more))


ENDS = {"lift": "lifting", "project": "projection"}
X = torch.randn(3, 1, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("own_buffer", [True, False])
@pytest.mark.parametrize("product", PRODUCTS)
def test_a_product_that_cannot_be_followed_changes_nothing(product, own_buffer, recognised, agree):
    def body(model, x):
        for k in range(2):
            s, t = model.get_submodule(f"s{k}")(x), model.get_submodule(f"t{k}")(x)
            model.note(s=s, t=t, x=x, y=s + t)
            x = functional.gelu(s + t)
        return x

    layers = {f"s{k}": Spectral(PRODUCTS[product], own_buffer) for k in range(2)}
    model = Operator(body, **layers, t0=pointwise(), t1=pointwise())
    record = recognised(
        model,
        X,
        roles=ENDS | {f"s{k}": "spectral" for k in range(2)} | {f"t{k}": "local" for k in range(2)},
        space={"s0": SPACE, "t1": SPACE},
        blocks=[(f"#{k}", [f"s{k}"], [f"t{k}"]) for k in range(2)],
    )
    agree(record.blocks, model.noted[-2:], SPACE)
    assert record.module("s0").stats["truncated_energy_fraction"] > 0.1


def test_an_activation_that_cannot_be_followed_ends_a_sum(recognised, agree):
    @script
    def act(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) * 0.5

    def body(model, x):
        for _ in range(2):
            s, t = model.s(x), model.t(x)
            model.note(s=s, t=t, x=x, y=s + t)
            x = act(s + t)
        return x

    model = Operator(body, s=Spectral(), t=pointwise())
    roles = ENDS | {"s": "spectral", "t": "local"}
    blocks = [("#0", ["s"], ["t"]), ("#1", ["s"], ["t"])]
    record = recognised(model, X, roles=roles, space={"s": SPACE}, blocks=blocks)
    agree(record.blocks, model.noted[-2:], SPACE)


def test_a_head_of_every_layer_is_a_projection_and_no_branch(recognised, agree):
    def body(model, x):
        total = 0
        for head in (model.head0, model.head1):
            s = model.s(x)
            model.note(x=x, y=x + s)
            total, x = total + head(s), x + s
        return total

    model = Operator(body, s=Spectral(), head0=pointwise(), head1=pointwise())
    model.project = nn.Identity()
    record = recognised(
        model,
        X,
        roles={"lift": "lifting", "s": "spectral", "head0": "projection", "head1": "projection"},
        space={"head0": SPACE},
        blocks=[("#0", ["s"], []), ("#1", ["s"], [])],
    )
    agree(record.blocks, model.noted[-2:], SPACE)


class FromPoints(nn.Module):
    """Points to a field by an inverse transform alone."""

    def forward(self, points):
        waves = torch.outer(torch.linspace(0, 3, points.shape[1]), torch.arange(11.0))
        return torch.fft.irfft(torch.einsum("bpc,pm->bcm", points + 0j, torch.exp(1j * waves)), n=20)


class ToPoints(nn.Module):
    def forward(self, field):
        waves = torch.outer(torch.linspace(0, 3, 7), torch.arange(11.0))
        return torch.einsum("bcm,pm->bpc", torch.fft.rfft(field), torch.exp(1j * waves)).real


def test_transforms_that_do_not_belong_together_make_no_layer_spectral(recognised, agree):
    class OnPoints(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(2, WIDTH), nn.Linear(WIDTH, 1)
            self.enter, self.leave = FromPoints(), ToPoints()
            self.s, self.t, self.bias, self.noted = Spectral(), pointwise(), nn.Conv1d(1, WIDTH, 1), Notes()

        def forward(self, points):
            x = self.enter(self.first(points))
            grid = torch.linspace(0, 1, x.shape[-1]).expand(len(x), 1, -1)
            s, t = self.s(x), self.t(x)
            self.noted.append({"s": s, "t": t, "x": x, "y": s + t + self.bias(grid)})
            return self.last(self.leave(s + t + self.bias(grid)))

    model = OnPoints()
    record = recognised(
        model,
        torch.rand(3, 7, 2),
        roles={"first": "lifting", "last": "projection", "s": "spectral", "t": "local"},
        space={"s": SPACE, "t": SPACE, "bias": SPACE},
        blocks=[("#0", ["s"], ["t"])],
    )
    agree(record.blocks, model.noted[-1:], SPACE)


@pytest.mark.parametrize("first", ["local", "embedding"])
def test_an_embedding_in_every_sum_is_no_branch(first, recognised):
    def body(model, x, time):
        for embed in (model.e0, model.e1):
            shift = embed(time)[..., None]
            s, t = model.s(x), model.t(x)
            x = functional.gelu(s + t + shift if first == "local" else shift + s + t)
        return x

    model = Operator(body, s=Spectral(), t=pointwise(), e0=nn.Linear(2, WIDTH), e1=nn.Linear(2, WIDTH))
    record = ft.capture(model, [(X, torch.randn(3, 2))])
    assert [(b.name, b.spectral, b.local) for b in record.blocks] == [
        (f"#{k}", ("s",), ("t",)) for k in range(2)
    ]
    assert record.warnings == ()
    assert not [f for f in ft.diagnose(record) if f.severity != "note"]


def masked(model, x, mask, points):
    return mask * x, x


def concatenated(model, x, mask, points):
    return torch.cat([x, points], 1), x


def with_positions(model, x, mask, points):
    return x, x + model.positions(points)


class WithAGrid(nn.Module):
    """Blocks whose branches have the same input, one of them with a mask or grid that the model is given."""

    def __init__(self, enter):
        super().__init__()
        self.lift, self.out, self.enter = nn.Conv1d(1, WIDTH, 1), nn.Conv1d(WIDTH, 1, 1), enter
        wider = WIDTH + 1 if enter is concatenated else WIDTH
        self.local = nn.ModuleList(nn.Conv1d(wider, WIDTH, 1) for _ in range(2))
        self.spectral = nn.ModuleList(Spectral() for _ in range(2))
        self.positions, self.noted = nn.Conv1d(1, WIDTH, 1), Notes()

    def forward(self, x, mask, points):
        x = self.lift(x)
        # The first block of `with_positions` would have nothing to tell an embedding from what is lifted.
        for layer, (spectral, local) in enumerate(zip(self.spectral, self.local, strict=True)):
            enter = (lambda _, x, *__: (x, x)) if self.enter is with_positions and not layer else self.enter
            to_local, to_spectral = enter(self, x, mask, points)
            s, t = spectral(to_spectral), local(to_local)
            self.noted.append({"s": s, "t": t})
            x = functional.gelu(s + t)
        return self.out(x)


@pytest.mark.parametrize("enter", [masked, concatenated, with_positions])
def test_a_mask_or_a_grid_does_not_make_it_another_input(enter):
    torch.manual_seed(0)
    model = WithAGrid(enter)
    x, points = torch.rand(3, 1, 32), torch.linspace(0, 1, 32).expand(3, 1, 32)
    mask = (torch.rand(3, WIDTH, 32) > 0.3).float()
    record = ft.capture(model, (x, mask, points))
    assert [(b.spectral, b.local) for b in record.blocks] == [
        ((f"spectral.{k}",), (f"local.{k}",)) for k in range(2)
    ]
    for block, noted in zip(record.blocks, model.noted[-2:], strict=True):
        s, t = (noted[name].double().numpy() for name in ("s", "t"))
        s, t = (field - field.mean(2, keepdims=True) for field in (s, t))
        ratio = ((s**2).mean() / (t**2).mean()) ** 0.5
        assert block.stats["spectral_local_ratio"] == pytest.approx(ratio, rel=1e-5)


def test_a_branch_of_a_grid_alone_has_another_input():
    class Apart(WithAGrid):
        def forward(self, x, mask, points):
            x = self.lift(x)
            for spectral, local in zip(self.spectral, self.local, strict=True):
                x = spectral(x) + local(mask)
            return self.out(x)

    inputs = torch.rand(3, 1, 32), torch.rand(3, WIDTH, 32), torch.rand(3, 1, 32)
    assert [block.local for block in ft.capture(Apart(masked), inputs).blocks] == []


def test_sums_are_numbered_in_the_order_in_which_they_are_made(agree):
    def body(model, x):
        sums = []
        for k in range(3):
            x = functional.avg_pool1d(x, 2) if k else x
            s, t = model.s(x) * 5.0**k, model.t(x)
            model.note(s=s, t=t, x=x, y=s + t)
            sums.append(s + t)
        y = sums.pop()
        while sums:
            y = functional.interpolate(y, scale_factor=2) + sums.pop()
        return y

    model = Operator(body, s=Spectral(), t=pointwise())
    record = ft.capture(model, torch.randn(3, 1, 32))
    assert [b.name for b in record.blocks] == ["#0", "#1", "#2"]
    agree(record.blocks, model.noted[-3:], SPACE)


WHOLE = {
    "a slice of everything": lambda x: x[:, : x.shape[1], 0:],
    "a view": lambda x: x.view(x.shape[0], -1).view(x.shape),
    "chunks put together": lambda x: torch.cat(x.chunk(2, dim=1), dim=1),
    "splits put together": lambda x: torch.cat(torch.split(x, [7, 13], dim=-1), dim=-1),
    "narrow": lambda x: x.narrow(1, 0, x.shape[1]),
    "unsqueezed and squeezed": lambda x: x.unsqueeze(-1).squeeze(-1),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_residual_is_the_same_tensor_in_another_form(name, recognised, agree):
    def body(model, x):
        y = WHOLE[name](x) + model.s(x)
        model.note(x=x, y=y)
        return y

    model = Operator(body, s=Spectral())
    roles = ENDS | {"s": "spectral"}
    record = recognised(model, X, roles=roles, space={"s": SPACE}, blocks=[("#0", ["s"], [])])
    agree(record.blocks, model.noted[-1:], SPACE)


@pytest.mark.parametrize("part", [lambda x: x[:, :1], lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)])
def test_a_part_of_the_input_or_another_order_of_its_parts_is_no_residual(part):
    model = Operator(lambda model, x: part(x) + model.s(x), s=Spectral())
    assert not [b for b in ft.map_model(model, X).blocks if b.residual]


def test_transforms_outside_of_every_module_are_reported():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.lift, self.layers = nn.Conv1d(1, WIDTH, 1), [Spectral(), Spectral()]

        def forward(self, x):
            x = self.lift(x)
            for layer in self.layers:
                x = x + layer(x)
            return x

    (warning,) = ft.capture(Hidden(), X).warnings
    assert "not registered" in warning
    model = Operator(lambda model, x: model.s(x) + model.t(x), s=Spectral(), t=pointwise())
    low = ft.capture(model, X, forward=lambda x: model(torch.fft.irfft(torch.fft.rfft(x)[..., :6], n=20)))
    assert [len(low.blocks), *low.warnings] == [1, warning]


def test_a_transform_and_its_inverse_in_different_modules_are_reported():
    class Analysis(nn.Module):
        def forward(self, x):
            return torch.fft.rfft(x)

    class Synthesis(nn.Module):
        def forward(self, x):
            return torch.fft.irfft(x)

    class Mix(nn.Module):
        def forward(self, x):
            return 0.5 * x

    model = nn.Sequential(nn.Conv1d(1, 2, 1), Analysis(), Mix(), Synthesis(), nn.Conv1d(2, 1, 1))
    record = ft.capture(model, X)
    assert {m.name: m.role for m in record.modules if m.role != "other"} == {
        "0": "lifting",
        "4": "projection",
    }
    (warning,) = record.warnings
    assert warning.startswith("one module calls the Fourier transform and another one its inverse")
