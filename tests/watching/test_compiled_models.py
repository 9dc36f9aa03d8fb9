"""Watched models that are compiled: the compiled code is the same, and so are the numbers of the loop."""

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.testing.in_memory_sink import InMemorySink


def make(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.GELU(), nn.Dropout(0.2), nn.Conv2d(4, 1, 1)
    )


def train(called: nn.Module, network: nn.Module, steps: int, watch: ft.Watch | None = None) -> list[float]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for step in range(steps):
        x = torch.randn(3, 1, 8, 8, generator=generator)
        loss = (called(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if watch is not None:
            watch.step(step, loss=loss)
    return losses


def compile_counted(module: nn.Module) -> tuple[nn.Module, list[int]]:
    """Return the compiled module, and a list that grows with each graph."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        graphs.append(len(list(graph.graph.nodes)))
        return graph.forward

    return torch.compile(module, backend=backend, fullgraph=True), graphs


@pytest.mark.parametrize("part", [False, True], ids=["the whole", "a part"])
def test_a_compiled_model_keeps_its_graph_and_its_losses(part):
    torch._dynamo.reset()
    results = []
    for watched in (False, True):
        network, sink = make(), InMemorySink()
        if part:
            network[0], graphs = compile_counted(network[0])
            called = network
        else:
            called, graphs = compile_counted(network)
        if watched:
            with ft.watch(called, [sink], every=3) as watch:
                losses = train(called, network, 7, watch)
            assert watch.problems == []
            assert [record.step for record in sink.records] == [0, 3, 6]
        else:
            losses = train(called, network, 7)
        results.append((losses, graphs, [p.detach().clone() for p in network.state_dict().values()]))
    (plain, own, expected), (found, others, state) = results
    assert plain == found and own == others and len(own) == 1
    assert all(torch.equal(one, other) for one, other in zip(expected, state, strict=True))
    record = sink.records[1]
    stats = record.module("4").stats
    assert stats["grad_norm"] > 0 and stats["update_to_weight"] > 0 and stats["rms"] > 0
    assert stats["output_grad_rms"] is None
    assert record.module("4").reasons["output_grad_rms"].startswith("the model is compiled")
    torch._dynamo.reset()


def test_two_forwards_before_one_backward_are_probed_without_a_write():
    torch._dynamo.reset()
    network, sink = make(), InMemorySink()
    called, _ = compile_counted(network)
    with ft.watch(called, [sink], every=1) as watch:
        first, second = called(torch.randn(2, 1, 4, 4)), called(torch.randn(2, 1, 4, 4))
        (first + second).square().mean().backward()
        watch.step(0)
    assert watch.problems == []
    assert sink.records[0].training["forwards"] == 2
    torch._dynamo.reset()


def test_a_model_compiled_in_place_is_refused_in_words():
    network = make()
    network.compile(backend="eager")
    with pytest.raises(ft.OptionError, match="compiled in place"):
        ft.watch(network)
