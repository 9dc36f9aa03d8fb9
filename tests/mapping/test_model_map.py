"""How a model is understood: roles, axes, channels and modes, for networks of many builds."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from fno_telemetry.mapping.model_map import block_name
from fno_telemetry.statistics.activation import Layout

LIFTER = {
    "lifter.input_transform": "other",
    "lifter.conv1": "other",
    "lifter.act": "activation",
    "lifter.conv2": "other",
    "lifter": "lifting",
}
BLOCK = {"spectral": "spectral", "local_conv": "local", "act": "activation", "": "block"}
STABLE = {"spectral": "spectral", "local_conv": "local", "act": "activation", "norm": "norm", "": "block"}


def block(path, parts=BLOCK):
    return {f"{path}.{part}".rstrip("."): role for part, role in parts.items()}


def u_shape(parts):
    return (
        LIFTER
        | block("encoder_blocks.0", parts)
        | {"downsample.0": "other"}
        | block("encoder_blocks.1", parts)
        | block("bottleneck", parts)
        | {"upsample.0": "other"}
        | {"decoder_blocks.0.0": "other", "decoder_blocks.0.1": "activation", "decoder_blocks.0.2": "other"}
        | {"decoder_blocks.0": "other", "output_proj": "projection"}
    )


EXPECTED = {
    "fno": LIFTER
    | block("fno_blocks.0")
    | block("fno_blocks.1")
    | {"intermediate": "other", "cnn_refiner.0.0": "other", "cnn_refiner.0.1": "activation"}
    | {"cnn_refiner.0": "other", "cnn_refiner": "other", "output_proj": "projection"},
    "fno_vanilla": LIFTER | block("blocks.0") | block("blocks.1") | {"output_proj": "projection"},
    "hybrid": u_shape(BLOCK),
    "stable_hybrid": u_shape(STABLE),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_roles_of_the_built_in_networks(name, small_network, images):
    model_map = ft.map_model(small_network(name), images)
    assert {module.name: module.role for module in model_map.modules} == EXPECTED[name]
    assert [module.name for module in model_map.modules] == list(EXPECTED[name])
    assert all(module.reason for module in model_map.modules)


@pytest.mark.parametrize("name", EXPECTED)
def test_axes_modes_and_blocks_of_the_built_in_networks(name, small_network, images):
    model_map = ft.map_model(small_network(name), images)
    assert {(module.spatial_axes, module.channel_axis) for module in model_map.modules} == {((2, 3), 1)}
    # The output is (B, H, W, C, 2).
    assert model_map.axes.layout("", None, (5, 12, 10, 1, 2), 5) == Layout(0, 3, (1, 2))
    roles = {role: [m for m in model_map.modules if m.role == role] for role in ("spectral", "block")}
    # The bottleneck keeps half as many modes.
    modes = [module.modes for module in roles["spectral"]]
    assert modes == ([(4, 4), (4, 3), (2, 2)] if "hybrid" in name else [(4, 4), (4, 4)])
    assert [(b.name, b.spectral, b.local) for b in model_map.blocks] == [
        (m.name, (f"{m.name}.spectral",), (f"{m.name}.local_conv",)) for m in roles["block"]
    ]


@pytest.mark.parametrize("name", EXPECTED)
def test_outputs_in_amp_phase_mode_are_both_projections(name, small_network, images):
    model_map = ft.map_model(small_network(name, output_mode="amp_phase"), images)
    assert [m.name for m in model_map.modules if m.role == "projection"] == ["output_amp", "output_phase"]


@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_the_map_does_not_depend_on_the_batch(batch, small_network, images):
    model = small_network()
    expected = ft.map_model(model, images)
    found = ft.map_model(model, images[:batch])
    assert (found.modules, found.blocks) == (expected.modules, expected.blocks)


class Fourier(nn.Module):
    """A spectral convolution over any axes of channels-first or channels-last tensors."""

    def __init__(self, channels, axes, channel=1):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, dtype=torch.complex64) / channels)
        self.axes, self.channel = axes, channel

    def forward(self, x):
        spectrum = torch.fft.rfftn(x, dim=self.axes)
        spectrum = torch.tensordot(spectrum, self.weight, dims=([self.channel], [0])).movedim(
            -1, self.channel
        )
        return torch.fft.irfftn(spectrum, s=[x.shape[axis] for axis in self.axes], dim=self.axes)


class OwnFNO(nn.Module):
    """As people write it: a lift, blocks inline, a projection; channels-first inside."""

    def __init__(self, dims, channels=6, spectral=None):
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        axes = tuple(range(2, dims + 2))
        self.lift, self.project = nn.Linear(2, channels), nn.Linear(channels, 1)
        self.spectral = nn.ModuleList(spectral or [Fourier(channels, axes) for _ in range(2)])
        self.pointwise = nn.ModuleList(conv(channels, channels, 1) for _ in range(2))

    def forward(self, x):
        x = self.lift(x).movedim(-1, 1)
        for spectral, pointwise in zip(self.spectral, self.pointwise, strict=True):
            x = functional.gelu(spectral(x) + pointwise(x))
        return self.project(x.movedim(1, -1))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("size", [7, 6])
def test_an_own_fno_that_is_channels_last_at_its_ends(dims, size):
    # With six points along every axis, space and channels have the same size.
    model_map = ft.map_model(OwnFNO(dims), torch.rand(2, *[size] * dims, 2))
    assert {m.name: m.role for m in model_map.modules} == {
        "lift": "lifting",
        **{f"spectral.{k}": "spectral" for k in range(2)},
        **{f"pointwise.{k}": "local" for k in range(2)},
        "#gelu": "activation",
        "project": "projection",
    }
    inside, ends = tuple(range(2, dims + 2)), tuple(range(1, dims + 1))
    for module in model_map.modules:
        last = module.name in ("lift", "project")
        assert (module.spatial_axes, module.channel_axis) == ((ends, dims + 1) if last else (inside, 1)), (
            module.name
        )
    assert [block.name for block in model_map.blocks] == ["#0", "#1"]


def test_a_network_that_is_channels_last_throughout():
    class Mixed(nn.Module):
        """Like AFNO: (B, H, W, C), a filter over axes 1 and 2, then an MLP."""

        def __init__(self):
            super().__init__()
            self.norm, self.filter = nn.LayerNorm(6), Fourier(6, (1, 2), channel=3)
            self.mlp = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6))

        def forward(self, x):
            x = x + self.filter(self.norm(x))
            return x + self.mlp(self.norm(x))

    model = nn.Sequential(nn.Linear(3, 6), Mixed(), Mixed(), nn.Linear(6, 1))
    for size in (8, 6):
        model_map = ft.map_model(model, torch.rand(2, size, size, 3))
        assert {(m.spatial_axes, m.channel_axis) for m in model_map.modules} == {((1, 2), 3)}
        roles = {m.name: m.role for m in model_map.modules}
        assert roles["1.filter"] == roles["2.filter"] == "spectral"
        assert (roles["0"], roles["3"], roles["1.norm"]) == ("lifting", "projection", "norm")


@pytest.mark.parametrize("size", [8, 6])
def test_axes_transformed_one_after_the_other_are_all_space(size):
    class Factorized(nn.Module):
        """Like F-FNO: one transform for each axis, and a tuple to return."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x):
            along = [
                torch.fft.irfft(torch.fft.rfft(x, dim=axis) * self.weight, n=x.shape[axis], dim=axis)
                for axis in (-1, -2)
            ]
            return along[0] + along[1], None

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.lift, self.spectral = nn.Conv2d(1, 6, 1), Factorized()
            self.project = nn.Conv2d(6, 1, 1)

        def forward(self, x):
            x = self.lift(x)
            return self.project(x + self.spectral(x)[0])

    model = Network()
    model_map = ft.map_model(model, torch.rand(2, 1, size, 9))
    assert model_map["spectral"].role == "spectral"
    assert model_map["spectral"].spatial_axes == (2, 3)
    record = ft.capture(model, torch.rand(2, 1, size, 9))
    assert record.module("spectral", item="0").spatial_axes == (2, 3)
    assert record.blocks[0].stats["update_ratio"] > 0


def test_transforms_in_modules_of_their_own_make_their_parent_spectral():
    class Forward(nn.Module):
        def forward(self, x):
            return torch.fft.rfft2(x)

    class Inverse(nn.Module):
        def forward(self, x):
            return torch.fft.irfft2(x)

    model = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.Sequential(Forward(), nn.Identity(), Inverse()), nn.Conv2d(4, 1, 1)
    )
    roles = {m.name: m.role for m in ft.map_model(model, torch.rand(2, 1, 8, 8)).modules}
    assert roles == {
        "0": "lifting",
        "1.0": "other",
        "1.1": "other",
        "1.2": "other",
        "1": "spectral",
        "2": "projection",
    }


def test_one_blocks_module_called_with_an_index_and_a_shared_activation():
    class Blocks(nn.Module):
        """Like neuraloperator: one module holds all layers and is called once for each."""

        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(Fourier(6, (2, 3)) for _ in range(3))
            self.skips = nn.ModuleList(nn.Conv2d(6, 6, 1) for _ in range(3))
            self.act = nn.GELU()

        def forward(self, x, index=0):
            return self.act(self.convs[index](x) + self.skips[index](x))

    class Operator(nn.Module):
        def __init__(self):
            super().__init__()
            self.lifting = nn.Sequential(nn.Conv2d(1, 8, 1), nn.GELU(), nn.Conv2d(8, 6, 1))
            self.fno_blocks = Blocks()
            self.projection = nn.Sequential(nn.Conv2d(6, 8, 1), nn.GELU(), nn.Conv2d(8, 1, 1))

        def forward(self, x):
            x = self.lifting(x)
            for index in range(3):
                x = self.fno_blocks(x, index)
            return self.projection(x)

    model = Operator()
    model_map = ft.map_model(model, torch.rand(2, 1, 8, 8))
    roles = {m.name: m.role for m in model_map.modules}
    assert (roles["lifting"], roles["fno_blocks"], roles["fno_blocks.act"]) == (
        "lifting",
        "block",
        "activation",
    )
    assert model_map["fno_blocks"].calls == 3
    assert roles["projection"] == "projection"
    record = ft.capture(model, torch.rand(2, 1, 8, 8))
    assert [(b.name, b.call, b.spectral, b.local) for b in record.blocks] == [
        ("fno_blocks", k, (f"fno_blocks.convs.{k}",), (f"fno_blocks.skips.{k}",)) for k in range(3)
    ]


def test_an_early_layer_that_reaches_the_output_is_no_projection():
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.skip, self.lift = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 6, 1)
            self.spectral, self.project = Fourier(6, (2, 3)), nn.Conv2d(6, 1, 1)

        def forward(self, x):
            skip = self.skip(x)
            return torch.cat([skip, self.project(self.spectral(self.lift(x)))], 1)

    roles = {m.name: m.role for m in ft.map_model(Skips(), torch.rand(2, 1, 8, 8)).modules}
    assert roles == {"skip": "lifting", "lift": "lifting", "spectral": "spectral", "project": "projection"}


def test_tokens_have_their_channels_last_in_linear_and_norm_layers():
    model = nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.LayerNorm((5, 6)), nn.GELU())
    model_map = ft.map_model(model, torch.rand(2, 5, 3))
    assert [m.channel_axis for m in model_map.modules] == [2, 2, 1, 1]


def test_sums_beyond_those_that_were_observed_are_numbered():
    assert [block_name("a", (), number) for number in (0, 1)] == ["a", "a#1"]
    assert [block_name("a", {"a"}, number) for number in (0, 1)] == ["a#0", "a#1"]
    assert block_name("", (), 0) == "#0"


def test_a_network_without_fourier_transforms_has_axes_from_its_convolutions():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)
    )
    model_map = ft.map_model(model, torch.rand(2, 1, 8, 8))
    assert [(m.spatial_axes, m.channel_axis) for m in model_map.modules] == [
        *[((2, 3), 1)] * 3,
        *[((), 1)] * 2,
    ]
    assert {m.role for m in model_map.modules} == {"other", "norm", "activation"}
    assert model_map.blocks == ()


def test_a_layer_whose_parameters_are_in_a_list_lifts_and_projects():
    class Listed(nn.Module):
        def __init__(self, inside, outside):
            super().__init__()
            self.weights = nn.ParameterList([torch.ones(outside, inside)])

        def forward(self, x):
            return torch.einsum("oi,bihw->bohw", self.weights[0], x)

    model = nn.Sequential(Listed(1, 4), Fourier(4, (2, 3)), Listed(4, 1))
    roles = [module.role for module in ft.map_model(model, torch.rand(2, 1, 8, 8)).modules]
    assert roles == ["lifting", "spectral", "projection"]
