"""Networks that are no operators get no role of one, and value statistics for every layer all the same."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft


class Residual(nn.Module):
    def __init__(self, channels, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels * stride, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels * stride), nn.BatchNorm2d(channels * stride)
        self.conv2 = nn.Conv2d(channels * stride, channels * stride, 3, padding=1, bias=False)
        self.downsample = nn.Conv2d(channels, channels * stride, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.tokens = nn.Sequential(nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 16))
        self.channels = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))

    def forward(self, x):
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Transformer(nn.Module):
    """A transformer block written out, over patches."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(2, 8, 2, stride=2)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Inception(nn.Module):
    """Two branches with the same input that are added: both are local."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(2, 2, 7, padding=3), nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return x + torch.relu(self.wide(x) + self.narrow(x))


class OneTransform(nn.Module):
    """Looks at a spectrum and never comes back from it: no spectral convolution."""

    def __init__(self):
        super().__init__()
        self.features, self.skip = nn.Linear(5, 8), nn.Linear(8, 8)

    def forward(self, x):
        power = torch.fft.rfft(x, dim=-1).abs()
        return self.features(power) + self.skip(x)


NETWORKS = {
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
        ),
        (3, 2, 8, 8),
    ),
    "resnet": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), Residual(4), Residual(4, 2)), (3, 2, 8, 8)),
    "mixer": (lambda: nn.Sequential(Mixer(), Mixer()), (3, 16, 8)),
    "transformer": (Transformer, (3, 2, 8, 8)),
    "torch's transformer": (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
        (3, 16, 8),
    ),
    "two local branches": (lambda: nn.Sequential(Inception(), Inception()), (3, 2, 8, 8)),
    "one transform": (OneTransform, (3, 6, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_role_of_an_operator_is_given_to_what_is_none(name):
    build, shape = NETWORKS[name]
    model, x = build(), torch.rand(shape)
    model_map = ft.map_model(model, x)
    assert {module.role for module in model_map.modules} <= {"activation", "norm", "other"}
    assert model_map.blocks == ()
    record = ft.capture(model, x)
    assert (record.blocks, record.errors) == ((), ())
    told = ["the model's own forward calls the Fourier transforms"] if name == "one transform" else []
    assert [warning.split(",")[0] for warning in record.warnings] == told
    leaves = {path for path, module in model.named_modules() if not [*module.children()]}
    measured = {module.name: module for module in record.modules}
    assert {entry["name"] for entry in record.not_fired} <= {"0.self_attn.out_proj"}
    assert leaves - {"0.self_attn.out_proj"} <= set(measured)
    assert all(module.stats["count"] > 0 and module.stats["rms"] > 0 for module in measured.values())


class Inline(nn.Module):
    """An operator that transforms in its own forward."""

    def __init__(self):
        super().__init__()
        self.lift, self.local = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.lift(x)
        spectrum = torch.fft.rfft2(x)
        return torch.relu(torch.fft.irfft2(spectrum * (spectrum.abs() > 1), s=x.shape[-2:]) + self.local(x))


def test_an_operator_that_transforms_in_its_own_forward_is_told_of():
    model, x = Inline(), torch.rand(3, 1, 8, 10)
    record = ft.capture(model, x)
    assert {m.name: m.role for m in record.modules} == {
        "lift": "lifting",
        "local": "other",
        "#relu": "activation",
    }
    assert [warning.split(":")[0] for warning in record.warnings] == [
        "the model's own forward calls the Fourier transforms, so no module is spectral and there are no "
        "branch shares; put the transforms into a module of their own"
    ]
    # As a block of a larger network it is the spectral layer as a whole.
    model_map = ft.map_model(nn.Sequential(model), x)
    assert {m.name: m.role for m in model_map.modules if m.role == "spectral"} == {"0": "spectral"}
    assert [warning.split(":")[0] for warning in ft.capture(nn.Sequential(model), x).warnings] == ["0"]
