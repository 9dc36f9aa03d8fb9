"""A model and a part of it are watched in the same steps: each has the records that it has alone."""

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.testing.in_memory_sink import InMemorySink

STEPS = 4


class Part(nn.Module):
    """A spectral and a local branch, added by a function, or by one that has to be followed."""

    def __init__(self, is_followed: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(3, 3, 2, 2, dtype=torch.cfloat))
        self.local, self.norm, self.dropout = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.2)
        self.gate = nn.Parameter(torch.tensor(0.3))
        self._is_followed = is_followed

    def forward(self, x):
        kept = torch.einsum("bchw,cdhw->bdhw", torch.fft.rfft2(x)[..., :2, :2], self.weight)
        spectral, local = torch.fft.irfft2(kept, s=x.shape[-2:]), self.local(x)
        both = torch.lerp(spectral, local, self.gate) if self._is_followed else spectral + local
        return self.dropout(nn.functional.gelu(self.norm(both)))


class Whole(nn.Module):
    def __init__(self, is_followed: bool) -> None:
        super().__init__()
        self.lifting, self.part, self.projection = nn.Conv2d(1, 3, 1), Part(is_followed), nn.Conv2d(3, 1, 1)

    def forward(self, x):
        lifted = self.lifting(x)
        return self.projection(lifted + self.part(torch.sin(lifted) * 2))


def train(is_followed: bool, sinks: dict[str, InMemorySink]) -> list[torch.Tensor]:
    """Train, and watch the parts that are named; return losses, the state at the end, and the problems."""
    torch.manual_seed(0)
    network = Whole(is_followed)
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    watches = [
        ft.watch(network.get_submodule(name), [sink], every=1 if name else 2) for name, sink in sinks.items()
    ]
    generator = torch.Generator().manual_seed(2)
    found = []
    for step in range(STEPS):
        x = torch.randn(2, 1, 6, 5, generator=generator)
        loss = (network(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.detach())
        for watch in watches:
            watch.step(step, loss=loss)
        if step == 2:
            network.eval()
            with torch.no_grad():
                found.append(network(x))
            network.train()
    for watch in watches:
        watch.close()
        assert watch.problems == []
    return [*found, *network.state_dict().values(), torch.get_rng_state()]


@pytest.mark.parametrize("is_followed", [False, True], ids=["as planned", "followed"])
@pytest.mark.parametrize("names", [("", "part"), ("part", "")], ids=["the whole first", "the part first"])
def test_both_have_the_records_that_they_have_alone(is_followed, names):
    sinks = {name: InMemorySink() for name in names}
    found = train(is_followed, sinks)
    plain = train(is_followed, {})
    assert all(torch.equal(one, other) for one, other in zip(plain, found, strict=True))
    for name, sink in sinks.items():
        alone = InMemorySink()
        train(is_followed, {name: alone})
        assert [(each.step, each.stage) for each in sink.records] == [
            (each.step, each.stage) for each in alone.records
        ]
        assert len(sink.records) == (5 if name else 3)
        for one, other in zip(sink.records, alone.records, strict=True):
            assert one.errors == other.errors == () and one.provenance["deviations"] == 0
            assert one.modules == other.modules
            assert one.blocks == other.blocks
            assert one.parameters == other.parameters
