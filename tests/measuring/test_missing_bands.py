"""The block at which a band of the target is lost, in captures and in watched trainings."""

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.testing.in_memory_sink import InMemorySink

NAMES = ("missing_band_in", "missing_band_out")


class Spectral(nn.Module):
    def forward(self, x):
        return torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[-2:])


class Notch(nn.Module):
    """Removes |f| from 3/16 to 1/4."""

    def forward(self, x):
        along = [torch.fft.fftfreq(size) for size in x.shape[-2:]]
        radius = torch.hypot(along[0][:, None], along[1])
        return torch.fft.ifft2(torch.fft.fft2(x) * ((radius <= 3 / 16) | (radius > 1 / 4))).real


class Block(nn.Module):
    """Multiplies its input by 5/4."""

    def __init__(self, after):
        super().__init__()
        self.spectral, self.local, self.after = Spectral(), nn.Conv2d(1, 1, 1, bias=False), after
        nn.init.constant_(self.local.weight, 1 / 4)

    def forward(self, x):
        return self.after(self.spectral(x) + self.local(x))


def network(broken=None):
    return nn.Sequential(*(Block(Notch() if index == broken else nn.Identity()) for index in range(4)))


@pytest.fixture
def pair():
    x = torch.randn(6, 1, 32, 32)
    return x, x * (5 / 4) ** 4


@pytest.mark.parametrize("broken", [0, 2, 3])
def test_the_share_falls_in_the_block_that_loses_the_band(pair, broken):
    x, y = pair
    whole = ft.capture(network(broken), [(x, y)], inputs=0, target=1)
    assert whole.accuracy.bands.missing == (6, 7)
    coefficients = torch.fft.fftn(x.double(), dim=(2, 3)).abs().square()
    coefficients[..., 0, 0] = 0
    along = torch.fft.fftfreq(32, dtype=torch.float64)
    radius = torch.hypot(along[:, None], along)
    inside = (radius > 3 / 16) & (radius <= 1 / 4)
    share = float((coefficients * inside).sum() / coefficients.sum())
    for index in range(4):
        stats = whole.block(str(index)).stats
        assert stats["missing_band_in"] == pytest.approx(share if index <= broken else 0, rel=1e-5, abs=1e-9)
        assert stats["missing_band_out"] == pytest.approx(share if index < broken else 0, rel=1e-5, abs=1e-9)
    split = ft.capture(
        network(broken), [(x[:1], y[:1]), (x[1:3], y[1:3]), (x[3:], y[3:])], inputs=0, target=1
    )
    for one, other in zip(split.blocks, whole.blocks, strict=True):
        for name in NAMES:
            assert one.stats[name] == pytest.approx(other.stats[name], rel=1e-5, abs=1e-9)


def test_a_network_that_loses_nothing_says_so(pair):
    record = ft.capture(network(), [pair], inputs=0, target=1)
    for block in record.blocks:
        assert {name: block.stats[name] for name in NAMES} == dict.fromkeys(NAMES)
        assert {block.reasons[name] for name in NAMES} == {"the output misses no band of the target"}


def test_without_a_target_blocks_are_not_asked(pair):
    record = ft.capture(network(2), pair[0])
    assert all(not set(NAMES) & set(block.stats) for block in record.blocks)


def test_a_watched_training_has_them_where_the_step_before_had_a_target(pair):
    x, y = pair
    model, sink = network(2), InMemorySink()
    with ft.watch(model, [sink], every=1) as watch:
        for step, has_target in enumerate((True, True, False, False, True, True)):
            output = model(x)
            watch.step(step, **({"output": output, "target": y} if has_target else {}))
    assert watch.problems == []
    found = [record.block("2") for record in sink.records]
    for step in (0, 1, 5):
        assert found[step].stats["missing_band_in"] > 0.05
        assert found[step].stats["missing_band_out"] == pytest.approx(0, abs=1e-9)
    for step in (2, 3):
        assert not set(NAMES) & set(found[step].stats)
    assert {found[4].stats[name] for name in NAMES} == {None}
    assert {found[4].reasons[name] for name in NAMES} == {"the spectra of this block were not measured"}
