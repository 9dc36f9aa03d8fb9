"""Watched loops in several processes, as functions that each process of a group calls."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fno_telemetry as ft
from fno_telemetry.processes import meeting
from fno_telemetry.report import as_document
from fno_telemetry.testing.in_memory_sink import InMemorySink
from support.process_captures import Operator, Skips

STEPS = 3


def make_batch(rank: int, step: int, size: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of a process in a step; by default its size is another one in each process."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    x = (1 + rank) * torch.randn(size or 1 + rank, 1, 12, 10, generator=generator) + step
    return x, 0.5 * x.roll(1, 2)


def join_batches(step: int, count: int, size: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The batches of all processes in a step as one."""
    xs, ys = zip(*(make_batch(rank, step, size) for rank in range(count)), strict=True)
    return torch.cat(xs), torch.cat(ys)


def train(
    called: nn.Module,
    network: nn.Module,
    watch: ft.Watch | None,
    rank: int,
    size: int | None = None,
    steps: int = STEPS,
    with_output: bool = True,
) -> list[float]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    losses = []
    for step in range(steps):
        x, y = make_batch(rank, step, size)
        output = called(x)
        loss = (output - y).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if watch is not None:
            given = {"output": output, "target": y} if with_output else {}
            watch.step(step, loss=loss, **given)
    return losses


def watch_and_train(
    called: nn.Module, network: nn.Module, rank: int, size: int | None = None, **options: Any
) -> dict[str, Any]:
    """Return the records, the problems and what the training came to."""
    sink = InMemorySink()
    with ft.watch(called, [sink], **{"every": 1, **options}) as watch:
        losses = train(called, network, watch, rank, size)
    return {
        "records": [as_document(record) for record in sink.records],
        "problems": watch.problems,
        "losses": losses,
        "weights": [_whole(p).double().sum().item() for p in network.parameters()],
    }


def _whole(parameter: Any) -> torch.Tensor:
    whole: torch.Tensor = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
    return torch.view_as_real(whole.detach()) if whole.is_complex() else whole.detach()


def make_operator() -> nn.Module:
    torch.manual_seed(0)
    network = Operator()
    network.scale = nn.Parameter(torch.tensor(1.5))  # of no module that is measured
    network.register_forward_hook(lambda module, args, output: output * module.scale)
    return network


def with_ddp(rank: int, folder: Path) -> Any:
    network = make_operator()
    return watch_and_train(DistributedDataParallel(network), network, rank, size=2)


def with_ddp_and_unequal_batches(rank: int, folder: Path) -> Any:
    network = make_operator()
    return watch_and_train(DistributedDataParallel(network), network, rank)


def without_a_watch(rank: int, folder: Path) -> Any:
    network = make_operator()
    losses = train(DistributedDataParallel(network), network, None, rank)
    return {"losses": losses, "weights": [_whole(p).double().sum().item() for p in network.parameters()]}


class Plain(nn.Module):
    """A network whose parameters are of one type, as FSDP wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 1, 1)
        self.scale = nn.Parameter(torch.full((5,), 1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.second(self.first(x)))) * self.scale.mean()


class WatchedOnce(Plain):
    """A model that not all processes watch."""


def make_plain() -> nn.Module:
    torch.manual_seed(0)
    return Plain()


def shard(network: nn.Module, whole: bool) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    if not whole:
        fully_shard(network.first)
        fully_shard(network.second)
    fully_shard(network)
    return network


def with_fsdp_by_part(rank: int, folder: Path) -> Any:
    network = shard(make_plain(), whole=False)
    return watch_and_train(network, network, rank, size=2)


def with_fsdp_as_a_whole(rank: int, folder: Path) -> Any:
    network = shard(make_plain(), whole=True)
    return watch_and_train(network, network, rank, size=2)


def with_fsdp_alone(rank: int, folder: Path) -> Any:
    network = shard(make_plain(), whole=False)
    return watch_and_train(network, network, rank, size=2, over_processes=False)


def with_a_layer_that_one_skips(rank: int, folder: Path) -> Any:
    torch.manual_seed(1)
    network = Skips()
    sink = InMemorySink()
    with ft.watch(network, [sink], every=1) as watch:
        for step in range(4):
            # The layer runs where the mean is above 2: in all but the first process.
            x = torch.full((1, 1, 4, 4), 1.0 + 2 * min(rank, 1)) + torch.eye(4)
            network(x).square().mean().backward()
            watch.step(step)
    return {"records": [as_document(record) for record in sink.records], "problems": watch.problems}


def with_an_idle_process(rank: int, folder: Path) -> Any:
    """The last process never runs the model in the second step."""
    network = make_plain()
    sink = InMemorySink()
    with ft.watch(network, [sink], every=1) as watch:
        for step in range(3):
            if step != 1 or rank != dist.get_world_size() - 1:
                network(make_batch(rank, step)[0]).square().mean().backward()
            watch.step(step)
    return {"steps": [record.step for record in sink.records], "problems": watch.problems}


def with_a_watch_in_the_first_process(rank: int, folder: Path) -> Any:
    meeting.JOIN_SECONDS = 0.5
    network = WatchedOnce()
    sink = InMemorySink()
    watch = ft.watch(network, [sink], every=1) if rank == 0 else None
    started = time.monotonic()
    losses = train(DistributedDataParallel(network), network, watch, rank)
    seconds = time.monotonic() - started
    if watch is not None:
        watch.close()
    return {
        "seconds": seconds,
        "problems": [] if watch is None else watch.problems,
        "steps": [record.step for record in sink.records],
        "warnings": [record.warnings for record in sink.records],
        "losses": losses,
    }


def with_other_options(rank: int, folder: Path) -> Any:
    network = make_plain()
    found = watch_and_train(network, network, rank, every=1, budget="full" if rank else "light")
    return found["problems"], [record["summary"]["checkpoint_step"] for record in found["records"]]


def with_a_process_that_ends_early(rank: int, folder: Path) -> Any:
    network = make_plain()
    sink = InMemorySink()
    with ft.watch(network, [sink], every=1) as watch:
        for step in range(2 if rank else 4):
            network(make_batch(rank, step)[0]).square().mean().backward()
            watch.step(step)
    return {"steps": [record.step for record in sink.records], "problems": watch.problems}


def with_several_forwards(rank: int, folder: Path) -> Any:
    """More forwards in one process than in another, and a validation."""
    network = make_plain()
    sink = InMemorySink()
    with ft.watch(network, [sink], every=1) as watch:
        for part in range(1 + rank):
            network(make_batch(rank, part)[0]).square().mean().backward()
        watch.step(0)
        network.eval()
        with torch.no_grad():
            network(make_batch(rank, 7)[0])
        watch.validation()
    return {"records": [as_document(record) for record in sink.records], "problems": watch.problems}


def with_a_process_that_dies(rank: int, folder: Path) -> Any:
    """The last process ends without a word in the second step; the others go on."""
    _die_in_the_second_step(rank, folder, dist.get_world_size() - 1)


def with_the_first_process_that_dies(rank: int, folder: Path) -> Any:
    """The first one does, which holds the store of all."""
    _die_in_the_second_step(rank, folder, 0)


def _die_in_the_second_step(rank: int, folder: Path, dying: int) -> None:
    network = make_plain()
    sink = InMemorySink()
    started = time.monotonic()
    with ft.watch(network, [sink], every=1) as watch:
        for step in range(3):
            network(make_batch(rank, step)[0]).square().mean().backward()
            if step == 1 and rank == dying:
                os._exit(0)
            watch.step(step)
    found = {
        "steps": [record.step for record in sink.records],
        "problems": watch.problems,
        "seconds": time.monotonic() - started,
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    os._exit(0)  # without waiting for the one that is gone
