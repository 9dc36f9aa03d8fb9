"""Watched loops in two processes: nothing hangs or changes, and gradients are those after their reduction."""

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fno_telemetry as ft
from fno_telemetry.testing.in_memory_sink import InMemorySink
from support import ready_python

SECONDS = 300
STEPS, EVERY = 200, 50  # four recorded steps: what a step leaves behind is there in the next ones
PROGRAM = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("processes", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.run(int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
"""


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
def test_two_processes_train_as_without_and_record_the_reduced_gradients(kind, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [ready_python.python(), "-c", PROGRAM, __file__]
    processes = [
        subprocess.Popen([*line, str(rank), str(port), kind, str(tmp_path)], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    end = time.monotonic() + SECONDS
    try:
        # One that fails leaves the other one waiting.
        while (codes := [process.poll() for process in processes]) != [0, 0] and not any(codes):
            assert time.monotonic() < end, "the processes hang"
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
        said = [process.communicate()[1].decode() for process in processes]
    assert codes == [0, 0], "\n".join(said)
    norms = json.loads((tmp_path / "0.json").read_text(encoding="utf-8"))
    assert norms == pytest.approx(reference(), rel=1e-5)
