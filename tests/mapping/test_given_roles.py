"""What somebody states about a module overrules what was seen, or is refused."""

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.architectures.layers import SpectralConvolution


class Wavelet(nn.Module):
    """Global, but without a Fourier transform: only a statement can make it spectral."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(4, 4, 7, padding=3)

    def forward(self, x):
        return self.inner(x)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.lift, self.wide, self.local = nn.Conv2d(1, 4, 1), Wavelet(), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.lift(x)
        return x + (self.wide(x) + self.local(x)).tanh()


def test_a_module_stated_to_be_spectral_takes_part_in_blocks():
    x = torch.rand(3, 1, 8, 8)
    assert ft.capture(Network(), x).blocks == ()
    given = {"wide": ft.GivenRole("spectral")}
    model_map = ft.map_model(Network(), x, given=given)
    assert (model_map["wide"].role, model_map["wide"].reason) == ("spectral", "given by hand")
    assert model_map["local"].role == "local"
    record = ft.capture(Network(), x, given=given)
    assert record.module("wide").role == "spectral"
    assert [(block.spectral, block.local) for block in record.blocks] == [(("wide",), ("local",))]
    assert record.blocks[0].stats["spectral_share"] > 0
    truncated = record.module("wide")
    assert truncated.stats["truncated_energy_fraction"] is None
    assert (
        truncated.reasons["truncated_energy_fraction"]
        == "the modes that the layer keeps could not be detected"
    )


def test_a_module_stated_not_to_be_spectral_is_not_and_neither_is_its_parent(small_network, images):
    given = {"blocks.0.spectral": ft.GivenRole("other")}
    record = ft.capture(small_network("fno_vanilla"), images, given=given)
    assert record.module("blocks.0.spectral").role == "other"
    assert [block.name for block in record.blocks] == ["blocks.1"]
    assert [m.name for m in record.modules if m.role == "spectral"] == ["blocks.1.spectral"]


def test_a_module_stated_to_be_no_branch_is_none(images):
    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.spectral = SpectralConvolution(1, 1, 3)
            self.local, self.third = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return self.spectral(x) + self.local(x) + self.third(x)

    torch.manual_seed(0)
    model = Three()
    given = {"third": ft.GivenRole(role="other")}
    s, t = (module(images).detach().numpy().astype(float) for module in (model.spectral, model.local))
    s, t = (field - field.mean((2, 3), keepdims=True) for field in (s, t))
    block = ft.capture(model, images, given=given).blocks[0]
    assert block.local == ("local",)
    assert block.stats["spectral_local_ratio"] == pytest.approx(
        (s**2).mean() ** 0.5 / (t**2).mean() ** 0.5, rel=1e-5
    )
    assert ft.capture(model, images).blocks[0].local == ("local", "third")


def test_any_role_can_be_stated_and_is_measured(small_network, images):
    given = {"cnn_refiner": ft.GivenRole("local"), "lifter.act": ft.GivenRole("norm")}
    record = ft.capture(small_network(), images, given=given)
    assert record.module("cnn_refiner").role == "local"
    assert record.module("lifter.act").role == "norm"


def test_axes_can_be_stated_for_one_module(small_network, images):
    given = {
        "lifter": ft.GivenRole(spatial_axes=(3,), channel_axis=2),
        "intermediate": ft.GivenRole(spatial_axes=()),
    }
    model_map = ft.map_model(small_network(), images, given=given)
    assert (model_map["lifter"].spatial_axes, model_map["lifter"].channel_axis) == ((3,), 2)
    assert model_map["lifter"].role == "lifting"
    assert model_map["lifter.conv2"].spatial_axes == (2, 3)
    record = ft.capture(small_network(), images, given=given)
    assert len(record.module("lifter").spectrum.sizes) == 1
    assert record.module("intermediate").spectrum is None


def test_an_activation_function_can_be_given_a_role():
    record = ft.capture(Network(), torch.rand(3, 1, 8, 8), given={"#tanh": ft.GivenRole("projection")})
    assert record.module("#tanh").role == "projection"


def test_a_module_that_is_not_called_may_be_named():
    model = Network()
    model.spare = nn.Conv2d(4, 4, 1)
    ft.map_model(model, torch.rand(3, 1, 8, 8), given={"spare": ft.GivenRole("local")})


@pytest.mark.parametrize("act", [ft.capture, ft.map_model])
def test_an_unknown_name_is_an_error_that_names_near_ones(act, small_network, images):
    given = {"fno_block.0": ft.GivenRole("block")}
    with pytest.raises(
        ft.MapError, match=r"'fno_block\.0', but the model has no such module; similar: fno_blocks\.0"
    ) as e:
        act(small_network(), images, given=given)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"role": "spektral"},
            "unknown role 'spektral'. Did you mean spectral\\? Known: lifting, spectral, local",
        ),
        ({"spatial_axes": (-1,)}, r"axes are counted from 0, but \[-1\] was given"),
        ({"spatial_axes": (2, 2)}, "only once"),
        ({"spatial_axes": (2, 3), "channel_axis": 3}, "spatial or as channel axis"),
        ({"channel_axis": True}, "counted from 0"),
        ({"channel_axis": 1.0}, "counted from 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(arguments, message):
    with pytest.raises(ft.MapError, match=message):
        ft.GivenRole(**arguments)


@pytest.mark.parametrize("entry", [ft.GivenRole(spatial_axes=(2, 4)), ft.GivenRole(channel_axis=4)])
def test_an_axis_that_the_module_does_not_have_is_refused(entry, small_network, images):
    with pytest.raises(
        ft.MapError, match=r"the output of 'lifter' has the shape \(.*\), so it has no axis 4"
    ):
        ft.capture(small_network(), images, given={"lifter": entry})
