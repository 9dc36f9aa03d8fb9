"""Branches are measured where they meet: every form of sum against NumPy on operands noted in the forward."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from fno_telemetry.architectures.layers import SpectralConvolution
from support.notes import Notes

CHANNELS, MODES = 4, 3


class Block(nn.Module):
    """A block whose forward is the function under test; it notes s, t, x and y as they are added."""

    def __init__(self, combine):
        super().__init__()
        self.spectral = SpectralConvolution(CHANNELS, CHANNELS, MODES)
        self.local = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.norm = nn.InstanceNorm2d(CHANNELS, affine=True)
        self.gate = nn.Parameter(torch.tensor(0.3))
        self.scale = nn.Parameter(torch.linspace(0.001, 0.1, CHANNELS)[:, None, None])
        self.combine = combine
        self.notes = Notes()

    @property
    def noted(self):
        return self.notes[-1]

    def forward(self, x):
        self.notes.append({"x": x.detach().clone()})
        return self.combine(self, x)

    def note(self, **tensors):
        self.noted.update({name: tensor.detach().clone() for name, tensor in tensors.items()})


def plain(block, x):
    s, t = block.spectral(x), block.local(x)
    y = x + functional.gelu(s + t)
    block.note(s=s, t=t, y=y)
    return y


def one_sum(block, x):
    s, t = block.spectral(x), block.local(x)
    y = x + s + t
    block.note(s=s, t=t, y=y)
    return y


def local_first(block, x):
    t, s = block.local(x), block.spectral(x)
    y = t + x + s
    block.note(s=s, t=t, y=y)
    return y


def builtin_sum(block, x):
    s, t = block.spectral(x), block.local(x)
    y = sum([x, s, t])
    block.note(s=s, t=t, y=y)
    return y


def two_local(block, x):
    s, t, m = block.spectral(x), block.local(x), block.second(x)
    y = x + functional.gelu(s + t + m)
    block.note(s=s, t=t + m, y=y)
    return y


def norm_after_branch(block, x):
    s, t = block.norm(block.spectral(x)), block.local(x)
    y = x + functional.gelu(s + t)
    block.note(s=s, t=t, y=y)
    return y


def norm_before_branches(block, x):
    s, t = block.spectral(block.norm(x)), block.local(block.norm(x))
    y = x + functional.gelu(t + s)
    block.note(s=s, t=t, y=y)
    return y


def gated(block, x):
    s, t = block.gate * block.spectral(x), (1 - block.gate) * block.local(x)
    y = x + functional.gelu(s + t)
    block.note(s=s, t=t, y=y)
    return y


def layer_scale(block, x):
    s, t = block.spectral(x), block.local(x)
    y = x + block.scale * block.norm(functional.gelu(s + t))
    block.note(s=s, t=t, y=y)
    return y


def resampled(block, x):
    s, t = block.spectral(x), block.local(x[:, :, ::2, ::2])
    t = functional.interpolate(t, scale_factor=2)
    y = x + (s + t)
    block.note(s=s, t=t, y=y)
    return y


def in_place(block, x):
    s, t = block.spectral(x), block.local(x)
    block.note(s=s, t=t)
    s += t
    y = x.clone()
    y.add_(functional.gelu(s))
    block.note(y=y)
    return y


def in_place_local(block, x):
    s, t = block.spectral(x), block.local(x)
    block.note(s=s, t=t)
    t.add_(s)
    y = t.relu_().add_(x)
    block.note(y=y)
    return y


def overwritten_after_the_sum(block, x):
    s, t = block.spectral(x), block.local(x)
    block.note(s=s, t=t)
    total = s + t
    t.zero_()
    y = x + total
    block.note(y=y)
    return y


def with_alpha(block, x):
    s, t = block.spectral(x), block.local(x)
    y = torch.add(x, torch.add(s, t, alpha=0.25), alpha=-2)
    block.note(s=s, t=t * 0.25, y=y)
    return y


def spectral_alpha(block, x):
    s, t = block.spectral(x), block.local(x)
    y = x + t.add(s, alpha=3)
    block.note(s=3 * s, t=t, y=y)
    return y


def subtracted(block, x):
    s, t = block.spectral(x), block.local(x)
    y = x - (s - t)
    block.note(s=s, t=-t, y=y)
    return y


def into_a_buffer(block, x):
    s, t = block.spectral(x), block.local(x)
    block.note(s=s, t=t)
    y = torch.add(x.clone(), torch.add(s, t, out=s))
    block.note(y=y)
    return y


def without_a_module(block, x):
    s, t = block.spectral(x), functional.conv2d(x, block.local.weight, padding=1)
    y = x + functional.gelu(s + t)
    block.note(s=s, t=t, y=y)
    return y


def broadcast(block, x):
    s, t = block.spectral(x), block.local(x)[:, :1]
    y = x + (s + t)
    block.note(s=s, t=t.expand_as(s), y=y)
    return y


def weighted(block, x):
    s, t = block.spectral(x), block.local(x)
    y = x + torch.lerp(s, t, 0.25)
    block.note(s=0.75 * s, t=0.25 * t, y=y)
    return y


def weighted_in_place(block, x):
    s, t, share = block.spectral(x), block.local(x), torch.linspace(0.1, 0.9, CHANNELS)[:, None, None]
    block.note(s=s * share, t=t * (1 - share))
    y = x + t.lerp_(end=s, weight=share)
    block.note(y=y)
    return y


def gated_in_the_sum(block, x):
    s, t = block.spectral(x), block.local(x)
    y = x + torch.addcmul(t, block.gate, s, value=2)
    block.note(s=2 * block.gate * s, t=t, y=y)
    return y


def gated_after_the_sum(block, x):
    s, t = block.spectral(x), block.local(x)
    y = torch.addcmul(x, block.scale, s + t)
    block.note(s=s, t=t, y=y)
    return y


FORMS = [plain, one_sum, local_first, builtin_sum, two_local, norm_after_branch, norm_before_branches, gated]
FORMS += [layer_scale, resampled, in_place, in_place_local, overwritten_after_the_sum, with_alpha]
FORMS += [spectral_alpha, subtracted, into_a_buffer, without_a_module, broadcast, weighted, weighted_in_place]
FORMS += [gated_in_the_sum, gated_after_the_sum]


@pytest.fixture
def fields():
    return torch.rand(3, CHANNELS, 8, 10) + torch.arange(3.0)[:, None, None, None]


def agrees(stats, expected, rel=1e-5):
    assert {**stats} == pytest.approx(expected, rel=rel, abs=1e-6)


@pytest.mark.parametrize("combine", FORMS, ids=lambda form: form.__name__)
def test_every_form_of_sum_is_measured_on_its_operands(combine, fields, branch_numbers):
    model = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), Block(combine))
    block = ft.capture(model, fields).blocks[0]
    agrees(block.stats, branch_numbers(**model[1].noted))
    assert (block.name, block.spectral) == ("1", ("1.spectral",))
    local = {two_local: ("1.local", "1.second"), without_a_module: ()}.get(combine, ("1.local",))
    assert block.local == local
    assert dict(block.reasons) == {}


@pytest.mark.parametrize("combine", FORMS, ids=lambda form: form.__name__)
def test_roles_are_the_same_in_every_form_of_sum(combine, fields):
    model_map = ft.map_model(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), Block(combine)), fields)
    roles = {module.name: module.role for module in model_map.modules}
    assert (roles["0"], roles["1"], roles["1.spectral"]) == ("lifting", "block", "spectral")
    assert roles.get("1.local", "local") == "local"
    assert roles.get("1.norm", "norm") == "norm"
    assert [block.name for block in model_map.blocks] == ["1"]


def test_a_branch_gated_to_zero_has_no_share(fields):
    block = Block(gated)
    block.gate.data.zero_()
    stats = ft.capture(nn.Sequential(block), fields).blocks[0].stats
    assert (stats["spectral_share"], stats["spectral_local_ratio"]) == (0.0, 0.0)
    assert stats["branch_coherence"] == pytest.approx(1.0)
    block.gate.data.fill_(1.0)
    record = ft.capture(nn.Sequential(block), fields).blocks[0]
    assert record.stats["spectral_share"] == 1.0
    assert record.stats["spectral_local_ratio"] is None
    assert record.reasons["spectral_local_ratio"] == "the local branch is constant in space"
    assert record.stats["branch_cosine"] is None


def test_a_bias_in_the_spectral_branch_does_not_make_it_look_alive(fields):
    class Biased(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = SpectralConvolution(CHANNELS, CHANNELS, MODES)
            self.inner.weights.data.zero_()

        def forward(self, x):
            return torch.fft.irfft2(torch.fft.rfft2(self.inner(x))) + 5

    block = Block(plain)
    block.spectral = Biased()
    stats = ft.capture(nn.Sequential(block), fields).blocks[0].stats
    assert stats["spectral_share"] == 0.0


def test_batches_merge_into_what_all_samples_give(fields, branch_numbers):
    model = nn.Sequential(Block(layer_scale))
    model(fields)
    expected = branch_numbers(**model[0].noted)
    agrees(ft.capture(model, list(fields.split(2))).blocks[0].stats, expected)
    agrees(ft.capture(model, list(fields.split(1))).blocks[0].stats, expected)


def test_a_spectral_module_whose_sum_is_not_seen_is_told_of(small_network, images):
    class Means(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = small_network("fno").fno_blocks[0]
            self.lift = nn.Conv2d(1, 5, 1)

        def forward(self, x):
            x = self.lift(x)
            return torch.stack([self.block.spectral(x), self.block.local_conv(x)]).mean(0)

    record = ft.capture(Means(), images)
    assert record.blocks == ()
    assert [warning.split(":")[0] for warning in record.warnings] == ["block.spectral"]
    assert ft.capture(small_network("fno"), images).warnings == ()


def test_the_update_is_that_of_the_block_itself_when_more_is_added_around_it(fields, branch_numbers):
    class Around(nn.Module):
        """Adds its input once more around the last of two blocks, in the very sum that ends that block."""

        def __init__(self):
            super().__init__()
            self.first, self.second = Block(plain), Block(plain)

        def forward(self, start):
            x = self.first(start)
            block = self.second
            s, t = block.spectral(x), block.local(x)
            u = functional.gelu(s + t)
            block.notes.append({"s": s, "t": t, "x": x, "y": x + u})
            return start + u + x

    model = Around()
    record = ft.capture(model, fields)
    expected = branch_numbers(**model.second.noted)
    assert [block.name for block in record.blocks] == ["first", "#0"]
    agrees({**record.blocks[1].stats, "gain": expected["gain"]}, expected)


def test_a_residual_around_a_block_that_has_its_own_changes_nothing(fields, branch_numbers):
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block(plain)

        def forward(self, x):
            return x + self.block(x)

    model = Around()
    agrees(ft.capture(model, fields).blocks[0].stats, branch_numbers(**model.block.noted))
