"""What is stated wins over what is seen, what is seen over what a class is called; each has its reason."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft


class Low(nn.Module):
    def forward(self, x):
        return torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[-2:])


class SpectralConv2d(nn.Conv2d):
    """Called as if it were spectral, and local by what it does."""


class Network(nn.Module):
    """Beside the spectral layer stands a norm, which is a branch of its own here."""

    def __init__(self):
        super().__init__()
        self.lift, self.project = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 1, 1)
        self.local_conv, self.beside = Low(), nn.InstanceNorm2d(4)
        self.again, self.spectral = Low(), SpectralConv2d(4, 4, 1)
        self.norm, self.act = nn.InstanceNorm2d(4), nn.GELU()

    def forward(self, x):
        x = self.act(self.local_conv(x := self.lift(x)) + self.beside(x))
        x = functional.silu(self.norm(self.again(x) + self.spectral(x)))
        return self.project(x)


X = torch.rand(2, 1, 8, 10)
SEEN = {
    "lift": ("lifting", "first layer applied to the model's input"),
    "local_conv": ("spectral", "Fourier transform and its inverse over axes 2, 3"),
    "beside": ("local", "added to local_conv, with the same input"),
    "again": ("spectral", "Fourier transform and its inverse over axes 2, 3"),
    "spectral": ("local", "added to again, with the same input"),
    "norm": ("norm", "class InstanceNorm2d"),
    "act": ("activation", "class GELU"),
    "#silu": ("activation", "calls silu()"),
    "project": ("projection", "last layer before the model's output"),
}


def roles(model_map):
    return {module.name: (module.role, module.reason) for module in model_map.modules}


def test_structure_wins_over_class_and_name():
    assert roles(ft.map_model(Network(), X)) == SEEN


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("role", ["local", "spectral", "norm", "other"])
def test_what_an_argument_states_wins_over_both(name, role):
    found = roles(ft.map_model(Network(), X, given={name: ft.GivenRole(role)}))
    assert found[name] == (role, "given by hand")


@pytest.mark.parametrize("name", SEEN)
def test_what_a_file_states_wins_over_both(name, tmp_path):
    path = tmp_path / "map.toml"
    path.write_text(f'schema = "fno-telemetry-map/1"\n[[modules]]\nname = "{name}"\nrole = "other"\n')
    given = ft.read_map(path)
    assert roles(ft.map_model(Network(), X, given=given))[name] == ("other", "given by hand")
    record = ft.capture(Network(), X, given=given, layers=[name])
    assert record.module(name).role == "other"


def test_axes_that_are_stated_win_over_those_that_were_followed():
    given = {"spectral": ft.GivenRole(spatial_axes=(2,), channel_axis=3)}
    assert ft.map_model(Network(), X)["spectral"].spatial_axes == (2, 3)
    record = ft.capture(Network(), X, given=given)
    assert record.module("spectral").spatial_axes == (2,)
    assert record.module("beside").spatial_axes == (2, 3)


@pytest.mark.parametrize("body", ["tokens", "padded"])
def test_a_map_that_is_written_and_read_back_changes_no_number(body, tmp_path):
    def tokens(x, spectral):
        flat = x.flatten(2)
        return functional.gelu(spectral(flat.unflatten(2, (8, 10))).flatten(2) + flat).unflatten(2, (8, 10))

    def padded(x, spectral):
        x = functional.pad(x, (2, 1, 0, 3))
        return (x + functional.gelu(spectral(x)))[..., :8, 2:12]

    class Given(nn.Module):
        def __init__(self):
            super().__init__()
            self.lift, self.inner, self.act = nn.Conv2d(1, 4, 1), Low(), nn.Identity()

        def forward(self, x):
            return self.act({"tokens": tokens, "padded": padded}[body](self.lift(x), self.inner))

    model = Given()
    ft.write_map(ft.map_model(model, X), tmp_path / "map.toml")
    seen = ft.capture(model, X)
    again = ft.capture(model, X, given=ft.read_map(tmp_path / "map.toml"))
    assert (again.modules, again.blocks, again.layers) == (seen.modules, seen.blocks, seen.layers)


def test_a_class_tells_activations_and_norms_and_nothing_else():
    named = nn.Sequential(SpectralConv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Softmax(1), nn.Dropout(0.1))
    found = roles(ft.map_model(named, X))
    assert [role for role, _ in found.values()] == ["other", "norm", "activation", "other"]
    assert found["0"][1] == "no role detected"
