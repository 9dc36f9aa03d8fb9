"""Watched loops in two processes: nothing hangs or changes, and gradients are those after their reduction."""

import json
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fno_telemetry as ft
from fno_telemetry.testing.in_memory_sink import InMemorySink

SECONDS = 300
STEPS, EVERY = 200, 50


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.GELU(), nn.Conv2d(4, 1, 1))


def batch(rank: int, step: int) -> torch.Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(10 * step + rank))


def train(called: nn.Module, network: nn.Module, rank: int, watch: ft.Watch | None) -> list[float]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    losses = []
    for step in range(STEPS):
        x = batch(rank, step)
        loss = (called(x) - 2 * x).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.01)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if watch is not None:
            watch.step(step, loss=loss)
    return losses


def run(rank: int, port: int, kind: str, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    results = []
    for watched in (False, True):
        network = make()
        if kind == "ddp":
            called: nn.Module = DistributedDataParallel(network)
        else:
            from torch.distributed.fsdp import fully_shard

            for part in (network[0], network[2]):
                fully_shard(part)
            called = fully_shard(network)
        sink = InMemorySink()
        if watched:
            with ft.watch(called, [sink], every=EVERY) as watch:
                losses = train(called, network, rank, watch)
            assert watch.problems == [], watch.problems
            assert [record.step for record in sink.records] == ([] if rank else [*range(0, STEPS, EVERY)])
        else:
            losses = train(called, network, rank, None)
        local = [getattr(p, "to_local", lambda p=p: p)().detach().clone() for p in network.parameters()]
        results.append((losses, local))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(one, other) for one, other in zip(results[0][1], results[1][1], strict=True))
    norms = [record.module("2").stats["grad_norm"] for record in sink.records]
    Path(folder, f"{rank}.json").write_text(json.dumps(norms), encoding="utf-8")
    dist.destroy_process_group()


def reference() -> list[float]:
    """Return the norms of the mean gradients of both processes, before clipping."""
    network = make()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    norms = []
    for step in range(STEPS):
        losses = []
        for rank in range(2):
            x = batch(rank, step)
            losses.append((network(x) - 2 * x).square().mean())
        (sum(losses) / 2).backward()
        if step % EVERY == 0:
            norms.append(float(torch.stack([p.grad.norm() for p in network[2].parameters()]).norm()))
        nn.utils.clip_grad_norm_(network.parameters(), 0.01)
        optimizer.step()
        optimizer.zero_grad()
    return norms


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_train_as_without_and_record_the_reduced_gradients(kind, tmp_path, monkeypatch):
    # The processes import this module by the name that it has here.
    monkeypatch.syspath_prepend(Path(__file__).parents[__name__.count(".")])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.spawn(run, (port, kind, str(tmp_path)), nprocs=2, join=False)
    deadline = SECONDS
    while not context.join(timeout=5):
        deadline -= 5
        if deadline <= 0:
            for process in context.processes:
                process.kill()
            pytest.fail("the processes hang")
    norms = json.loads((tmp_path / "0.json").read_text(encoding="utf-8"))
    assert norms == pytest.approx(reference(), rel=1e-5)
