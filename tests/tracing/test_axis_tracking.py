"""Axes are followed from tensor to tensor: which are space is known though all sizes are the same."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from fno_telemetry.tracing.axis_groups import AxisGroups


class Low(nn.Module):
    """A spectral layer over the last two axes."""

    def forward(self, x):
        spectrum = torch.fft.rfft2(x)
        return torch.fft.irfft2(spectrum * (spectrum.abs() > 0), s=x.shape[-2:])


class Before(nn.Module):
    """Notes what `body` makes of a field, before the field meets a transform."""

    def __init__(self, body):
        super().__init__()
        self.body, self.seen, self.spectral = body, nn.Identity(), Low()

    def forward(self, x):
        self.seen(self.body(x))
        return x + self.spectral(x)


class After(Before):
    """The same behind the transforms."""

    def forward(self, x):
        y = x + self.spectral(x)
        self.seen(self.body(y))
        return y


def window(x):
    """Cut space into windows of 2 x 3 points, the windows among the samples."""
    batch, channels, rows, columns = x.shape
    windows = x.view(batch, channels, rows // 2, 2, columns // 3, 3)
    return windows.permute(0, 2, 4, 3, 5, 1).reshape(-1, 2, 3, channels)


BODIES = {
    "permute": (lambda x: x.permute(0, 2, 3, 1), (1, 2)),
    "permute by name": (lambda x: torch.permute(x, dims=(2, 3, 0, 1)), (0, 1)),
    "transpose": (lambda x: x.transpose(1, -1), (1, 2)),
    "movedim": (lambda x: torch.movedim(x, 1, 3), (1, 2)),
    "mT": (lambda x: x[:, :, 0].mT, (1,)),
    "T of one field": (lambda x: x[0, :, 0].T, (0,)),
    "contiguous and copied": (lambda x: x.permute(0, 2, 3, 1).contiguous().clone().double(), (1, 2)),
    "stacked": (lambda x: torch.stack((x, 2 * x), -1), (2, 3)),
    "unbound": (lambda x: torch.stack((x, 2 * x)).unbind()[1], (2, 3)),
    "einsum": (lambda x: torch.einsum("bchw,cd -> hwbd", x, torch.ones(6, 5)), (0, 1)),
    "matrix product": (lambda x: x.permute(0, 2, 3, 1) @ torch.ones(6, 6), (1, 2)),
    "matrix product from the left": (lambda x: torch.ones(6, 6) @ x.flatten(2), (2,)),
    "patches put back": (
        lambda x: x.reshape(len(x), -1, 2, 3, 6, 6).permute(0, 1, 4, 2, 5, 3).reshape(len(x), 1, 12, 18),
        (2, 3),
    ),
    "pixel shuffle": (lambda x: functional.pixel_shuffle(torch.cat([x, x], 1), 2), (2, 3)),
    "repeated": (lambda x: x.permute(0, 2, 3, 1).repeat(1, 1, 1, 2), (1, 2)),
    "squeezed": (lambda x: x[:, :1].squeeze(1).unsqueeze(-1), (1, 2)),
    "selected": (lambda x: x[:, 0], (1, 2)),
    "sliced with steps": (lambda x: x[..., None, ::2, 1:5], (3, 4)),
    "flattened": (lambda x: x.flatten(2).transpose(1, 2), (1,)),
    "flattened and back": (lambda x: x.flatten(2).transpose(1, 2).unflatten(1, (6, 6)), (1, 2)),
    "flattened, mapped, unfolded": (
        lambda x: functional.gelu(x.flatten(2).mT * 2).mT.reshape(x.shape),
        (2, 3),
    ),
    "all points": (lambda x: x.permute(0, 2, 3, 1).reshape(-1, 6), ()),
    "points and back": (lambda x: x.permute(0, 2, 3, 1).reshape(-1, 6).view(-1, 6, 6, 6), (1, 2)),
    "windows": (window, (1, 2)),
    "linear": (lambda x: functional.linear(x.permute(0, 2, 3, 1), torch.ones(5, 6)), (1, 2)),
    "conv": (lambda x: functional.conv2d(x, torch.ones(5, 6, 3, 3), stride=2), (2, 3)),
    "transposed conv": (lambda x: functional.conv_transpose2d(x, torch.ones(6, 5, 2, 2), stride=2), (2, 3)),
    "conv over flattened space": (lambda x: functional.conv1d(x.flatten(2), torch.ones(4, 6, 1)), (2,)),
    "pooled": (lambda x: functional.avg_pool2d(x, 2), (2, 3)),
    "resized": (lambda x: functional.interpolate(x, scale_factor=2), (2, 3)),
    "normed": (lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), (6,)), (1, 2)),
    "joined": (lambda x: torch.cat([x, x * 2], 1).permute(0, 2, 3, 1), (1, 2)),
    "split": (lambda x: x.permute(0, 2, 3, 1).chunk(2, -1)[1], (1, 2)),
    "written into": (lambda x: written(x.permute(0, 2, 3, 1)), (1, 2)),
    "broadcast": (lambda x: x.permute(0, 2, 3, 1)[..., None, :] * x[:, 0, :, :, None, None], (1, 2)),
    "expanded": (lambda x: x[:, 0, None].expand(-1, 3, -1, -1), (2, 3)),
    "as real and back": (lambda x: torch.view_as_real(x.permute(0, 2, 3, 1).to(torch.cfloat)), (1, 2)),
}


def written(x):
    buffer = torch.zeros(*x.shape[:-1], 9)
    buffer[..., :6] = x
    return buffer


@pytest.mark.parametrize("around", [Before, After])
@pytest.mark.parametrize("body", BODIES)
def test_space_is_known_where_all_axes_have_one_size(around, body):
    function, expected = BODIES[body]
    # A convolution before it says that the last two axes belong together.
    model = nn.Sequential(nn.Conv2d(2, 6, 1), around(function))
    x = torch.rand(3, 2, 6, 6)
    assert ft.map_model(model, x)["1.seen"].spatial_axes == expected
    record = ft.capture(model, x)
    assert (record.module("1.seen").spatial_axes, record.errors) == (expected, ())


def test_two_axes_that_were_added_are_one_though_only_one_met_a_transform():
    class Added(nn.Module):
        """One side goes through a product of matrices, which tells nothing of its axes."""

        def __init__(self):
            super().__init__()
            self.seen, self.spectral = nn.Identity(), Low()

        def forward(self, x):
            other = self.seen(torch.einsum("bchw,ch->bchw", x, torch.ones(6, 6)))
            return self.spectral(x) + other

    assert ft.map_model(Added(), torch.rand(2, 6, 6, 6))["seen"].spatial_axes == (2, 3)


@pytest.mark.parametrize("index", [torch.tensor([0, 2]), torch.ones(3, dtype=torch.bool), [0, 1]])
def test_an_index_that_is_a_tensor_makes_axes_of_unknown_kind_and_no_error(index):
    model = Before(lambda x: x[index] if len(x) == 3 else x)
    record = ft.capture(model, [torch.rand(3, 6, 6, 6)])
    assert record.errors == ()


def test_an_axis_keeps_what_it_consists_of_whatever_order_that_becomes_known_in():
    groups = AxisGroups()
    points, (rows,), (columns,) = groups.create(48), groups.create(6), groups.create(8)
    groups.unite(points, (rows, columns))
    assert groups.resolve(points) == (rows, columns)
    other = groups.create(48)
    groups.reshape([groups.create(2), other], (2, 6, 8))
    groups.unite(points, other)
    assert groups.resolve(other) == groups.resolve(points)
    assert groups.reshape([points], (2, 24)) is None  # 2 x 24 is no way to cut 6 x 8


def test_one_sample_flattened_with_its_points_is_not_space():
    groups = AxisGroups()
    sample, rows, columns, channel = (groups.create(size) for size in (1, 4, 5, 3))
    points, last = groups.reshape([sample, rows, columns, channel], (20, 3))
    assert points == (*sample, *rows, *columns)
    assert last == channel
    assert groups.reshape([points, last], (1, 4, 5, 3)) == (sample, rows, columns, channel)


class Whitening(nn.Module):
    """A normalisation by matrix products over flattened space."""

    def forward(self, x):
        flat = x.transpose(0, 1).flatten(1)
        factor = torch.linalg.cholesky(flat @ flat.T + torch.eye(len(flat)))
        white = torch.linalg.solve_triangular(factor, flat, upper=False)
        return (
            torch.linalg.inv(factor.T @ factor).matmul(white).reshape(x.transpose(0, 1).shape).transpose(0, 1)
        )


def test_a_module_whose_way_was_lost_keeps_the_axes_of_a_field_of_the_same_shape():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.seen, self.spectral = Whitening(), nn.Identity(), Low()

        def forward(self, x):
            y = self.norm((x + self.spectral(x)).permute(0, 2, 3, 1))
            self.seen(y)
            return y

    model_map = ft.map_model(Around(), torch.rand(6, 6, 6, 6))
    assert model_map["norm"].spatial_axes == model_map["seen"].spatial_axes == (1, 2)
