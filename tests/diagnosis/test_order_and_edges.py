"""Rules about the order of axes and about edges, on small trainings made to fail and healthy ones."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from support.resolution_networks import make_network

RULES = ["field_order", "padding_missing"]
STEPS = 30
Pair = tuple[torch.Tensor, torch.Tensor]


def _periodic(seed: int = 0) -> Pair:
    """Random fields, and the same smoothed and squared in part."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(24, 1, 24, 24, generator=generator, dtype=torch.float64)
    x, y = _smooth(x, 4), _smooth(x, 2.5)
    return _scaled(x), _scaled(y + 0.3 * y.square())


def _cut_out(seed: int = 0) -> Pair:
    """A part of larger fields, and the same part of these carried along by half of its size."""
    generator = torch.Generator().manual_seed(seed)
    x = _smooth(torch.randn(24, 1, 48, 48, generator=generator, dtype=torch.float64), 5)
    return _scaled(x[..., :24, 4:28]), _scaled(x[..., :24, :24])


def _smooth(x: torch.Tensor, cycles: float) -> torch.Tensor:
    wave = torch.fft.fftfreq(x.shape[-1], dtype=torch.float64) * x.shape[-1]
    square = wave[:, None].square() + wave[None].square()
    return torch.fft.ifft2(torch.fft.fft2(x) * torch.exp(-square / cycles**2)).real


def _scaled(x: torch.Tensor) -> torch.Tensor:
    return ((x - x.mean()) / x.std()).float()


class Padded(nn.Module):
    """A network on fields that are padded at the end of both axes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(nn.functional.pad(x, (0, 8, 0, 8)))[..., :24, :24]


def _diagnose(
    pair: Pair, change: Callable[[nn.Module], nn.Module] = lambda n: n, steps: int = STEPS
) -> list[tuple[str, str | None]]:
    x, y = pair
    network = change(make_network())
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(steps):
        chosen = slice(8 * (step % 3), 8 * (step % 3) + 8)
        loss = (network(x[chosen]) - y[chosen]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    record = ft.capture(network, [(x[:12], y[:12]), (x[12:], y[12:])], inputs=0, target=1, step=steps)
    return [(finding.rule, finding.layer) for finding in ft.diagnose(record, rules=RULES)]


@pytest.mark.parametrize(
    "turn", [lambda x: x.transpose(2, 3), lambda x: x.flip(2), lambda x: x.rot90(1, (2, 3))]
)
def test_an_input_in_another_order_than_the_target_is_named(
    turn: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    # That can be told before any training.
    x, y = _periodic()
    assert _diagnose((turn(x).contiguous(), y), steps=0) == [("field_order", "input")]


def test_a_periodic_task_in_order_is_healthy() -> None:
    assert _diagnose(_periodic()) == []


def test_an_output_that_is_turned_after_the_training_is_named() -> None:
    x, y = _cut_out(1)

    network = nn.Conv2d(1, 1, 1)
    nn.init.constant_(network.weight, 0.9)
    record = ft.capture(network, [(x, y.mT, y)], inputs=1, target=2, step=10)
    assert [each.layer for each in ft.diagnose(record, rules=RULES)] == ["input"]
    asked = ft.capture(
        network, [(x, y)], inputs=1, target=1, step=10, prediction=lambda z, batch: (z.mT, batch[1])
    )
    assert [(each.rule, each.layer) for each in ft.diagnose(asked, rules=RULES)] == [
        ("field_order", "output")
    ]


def test_fields_that_are_not_periodic_need_padding() -> None:
    assert _diagnose(_cut_out()) == [("padding_missing", "output")]


def test_with_padding_edges_are_no_finding() -> None:
    assert _diagnose(_cut_out(), Padded) == []
