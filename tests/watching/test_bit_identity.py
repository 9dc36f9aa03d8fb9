"""Watched loops of 200 steps are those without a watch, bit for bit."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fno_telemetry as ft
from fno_telemetry.testing.in_memory_sink import InMemorySink

STEPS, DUE = 200, [0, 1, 80, 160]
SCHEDULE = {"every": 80, "first": 2}


class Network(nn.Module):
    """A spectral layer with complex weights, a shared layer, normalisation, dropout, an own parameter."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.lifting = nn.Conv2d(1, 3, 1)
        self.weight = nn.Parameter(0.1 * torch.randn(3, 3, 2, 2, dtype=torch.cfloat))
        self.local = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.2)
        self.projection = nn.Conv2d(3, 1, 1)
        self.gate = nn.Parameter(torch.tensor(0.5))
        self._reentrant = reentrant

    def forward(self, x):
        x = self.lifting(x)
        if self._reentrant is None:
            x = self.block(x)
        else:
            x = checkpoint(self.block, x, use_reentrant=self._reentrant)
        return self.projection(self.dropout(x))

    def block(self, x):
        kept = torch.einsum("bchw,cdhw->bdhw", torch.fft.rfft2(x.float())[..., :2, :2], self.weight)
        spectral = torch.fft.irfft2(kept, s=x.shape[-2:])
        return x + self.gate * nn.functional.gelu(self.norm(spectral + self.local(self.local(x))))


def make(reentrant: bool | None = None) -> Network:
    torch.manual_seed(0)
    return Network(reentrant)


def train(
    network: nn.Module,
    called: nn.Module,
    watch: ft.Watch | None = None,
    *,
    accumulate: int = 1,
    autocast: bool = False,
    clip: bool = False,
    averages: bool = False,
    copies: bool = False,
) -> list[torch.Tensor]:
    """Return all losses and the state at the end."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    averaged = torch.optim.swa_utils.AveragedModel(network) if averages else None
    generator = torch.Generator().manual_seed(7)
    found = []
    for step in range(STEPS):
        for _ in range(accumulate):
            x = torch.randn(2, 1, 6, 5, generator=generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                output = called(x)
                loss = nn.functional.mse_loss(output.float(), x.roll(1, -1)) / accumulate
            loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        if copies and step in DUE:
            torch.save(network, io.BytesIO())
            for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
                found.append(other.eval()(x).detach())
        optimizer.step()
        optimizer.zero_grad()
        if averaged is not None:
            averaged.update_parameters(network)
        found.append(loss.detach())
        if watch is not None:
            watch.step(step, loss=loss, output=output, target=x)
    if averaged is not None:
        found += averaged.state_dict().values()
    moments = [value for own in optimizer.state.values() for value in own.values()]
    return [*found, *network.state_dict().values(), *moments, torch.get_rng_state()]


@pytest.mark.parametrize(
    ("reentrant", "loop"),
    [
        (None, {}),
        (None, {"accumulate": 2}),
        (None, {"autocast": True}),
        (None, {"clip": True}),
        (True, {}),
        (False, {}),
        (None, {"averages": True}),
        (None, {"copies": True}),
    ],
    ids=[
        "plain",
        "accumulation",
        "bfloat16",
        "clipped",
        "reentrant checkpoints",
        "checkpoints",
        "average of the weights",
        "copied and saved",
    ],
)
def test_a_watched_loop_is_bit_identical(reentrant, loop):
    plain, watched, sink = make(reentrant), make(reentrant), InMemorySink()
    torch.manual_seed(1)
    expected = train(plain, plain, **loop)
    torch.manual_seed(1)
    with ft.watch(watched, [sink], **SCHEDULE) as watch:
        found = train(watched, watched, watch, **loop)
    assert watch.problems == []
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert [record.step for record in sink.records] == DUE
    assert all(record.errors == () for record in sink.records)


def test_a_watched_compiled_loop_has_the_same_graph_and_is_bit_identical():
    torch._dynamo.reset()
    results, sink = [], InMemorySink()
    for watched in (False, True):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.GELU(), nn.Dropout(0.2), nn.Conv2d(3, 1, 1)]
        network, graphs = nn.Sequential(*layers), []

        def backend(graph, inputs, graphs=graphs):
            graphs.append([node.name for node in graph.graph.nodes])
            return graph.forward

        called = torch.compile(network, backend=backend, fullgraph=True)
        if watched:
            with ft.watch(called, [sink], **SCHEDULE) as watch:
                found = train(network, called, watch)
            assert watch.problems == []
        else:
            found = train(network, called)
        results.append((graphs, found))
    (graphs, expected), (watched_graphs, found) = results
    assert graphs == watched_graphs and len(graphs) == 1
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert [record.step for record in sink.records] == DUE
    torch._dynamo.reset()
