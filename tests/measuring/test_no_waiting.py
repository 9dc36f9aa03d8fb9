"""Nothing in a measured forward waits for a device: no value is read before the end."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import fno_telemetry as ft
from fno_telemetry.architectures.layers import SpectralConvolution
from fno_telemetry.measuring.accumulators import States
from fno_telemetry.measuring.collector import Collector
from fno_telemetry.sources import digests
from fno_telemetry.statistics import reading
from fno_telemetry.statistics.activation import Activation
from fno_telemetry.tracing.followed_calls import FollowedCalls


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.spectral, self.local, self.act = SpectralConvolution(4, 4, 3), nn.Conv2d(4, 4, 1), nn.GELU()

    def forward(self, x):
        return x + self.act(self.spectral(x) + self.local(x))


class Waits(TorchDispatchMode):
    """Notes every function that waits for a device, or makes a tensor of a size that depends on values."""

    NAMES = (
        "_local_scalar_dense",
        "is_nonzero",
        "aten.nonzero",
        "aten.equal",
        "bincount",
        "unique",
        "masked_select",
    )

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.NAMES):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def far_away(monkeypatch):
    """Let tensors on the CPU be measured as if they were on a device; return what would wait there."""
    waits = Waits()
    aside, read_input = FollowedCalls.aside, digests._little_endian
    measuring = []

    def watched(self, where, body):
        def run():
            measuring.append(where)
            try:
                with waits:
                    body()
            finally:
                measuring.pop()

        aside(self, where, run)

    def read(piece):
        if measuring:
            waits.seen.append(f"the digest in {measuring[-1]}")
        return read_input(piece)

    monkeypatch.setattr(FollowedCalls, "aside", watched)
    monkeypatch.setattr(digests, "_little_endian", read)
    monkeypatch.setattr(digests, "_is_away", lambda tensor: True)
    monkeypatch.setattr(Activation, "on_host", False)
    monkeypatch.setattr(reading, "is_free", lambda tensor: False)
    return waits


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_a_planned_forward_waits_for_nothing(dtype, far_away):
    layers = (Block(), Block()) if dtype is torch.float32 else (nn.Conv2d(4, 4, 1, dtype=dtype),)
    model = nn.Sequential(*layers)
    fields = torch.randn(3, 4, 8, 8, dtype=dtype)
    plan = ft.plan(model, fields)
    far_away.seen.clear()
    record = ft.capture(model, [fields, fields], plan=plan)
    assert far_away.seen == []
    assert record.errors == ()
    whole = torch.cat([fields, fields])
    assert record.input_digest == ft.capture(nn.Identity(), whole).input_digest
    assert record.modules[0].stats["rms"] > 0


def test_a_forward_with_functions_to_count_waits_for_nothing(far_away):
    class Functional(Block):
        def forward(self, x):
            return 2 * functional.gelu(0.5 * self.spectral(x) + self.local(x))

    model, fields = Functional(), torch.randn(3, 4, 8, 8)
    plan = ft.plan(model, fields)
    far_away.seen.clear()
    record = ft.capture(model, fields, plan=plan)
    assert far_away.seen == []
    assert record.blocks[0].stats["spectral_share"] > 0


@pytest.mark.parametrize("away", [False, True])
def test_everything_on_a_device_is_moved_to_the_host_at_once(away, monkeypatch):
    moves = []
    move, move_all = States.move_to_host, Collector.move_to_host

    def from_a_device(self):
        self._was_away = away
        move_all(self)

    monkeypatch.setattr(States, "move_to_host", lambda *given: (moves.append(given), move(*given)))
    monkeypatch.setattr(Collector, "move_to_host", from_a_device)
    record = ft.capture(nn.Sequential(Block(), Block()), torch.randn(3, 4, 8, 8))
    assert len(moves) == away
    assert record.blocks[0].stats["spectral_share"] > 0
