"""Runs one training and writes what a user would have of it: reports, a history, weights."""

import contextlib
import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fno_telemetry as ft
from benchmarks.natural_failures.measured_numbers import measure_numbers
from benchmarks.natural_failures.setup import Setup

REPORTS = ("untrained", "half", "trained", "test")
HISTORY = "history.jsonl"
RECORDS = 8  # of a history, by its schedule


def train(setup: Setup, folder: Path) -> dict[str, Any]:
    """Train, write weights and the history into the folder; return losses and the test error."""
    network = setup.make()
    optimizer = setup.optimizer(network)
    rates = [group["lr"] for group in optimizer.param_groups]
    order = torch.Generator().manual_seed(setup.seed)
    losses: list[float] = []
    _save(network, folder / "untrained.pt")
    every = max(1, setup.steps // RECORDS)
    history = folder / HISTORY
    history.unlink(missing_ok=True)
    watched = ft.watch(
        network,
        [ft.HistoryFile(history)],
        every=every,
        first=2,
        steps=setup.watched,
        optimizer=optimizer,
        folder=folder,
    )
    with watched as watch:
        batches = iter(())
        for step in range(setup.steps):
            if step == setup.steps // 2:
                _save(network, folder / "half.pt")
            network.train()
            chosen = next(batches, None)
            if chosen is None:
                shuffled = torch.randperm(len(setup.train.x), generator=order)
                batches = iter(shuffled.split(setup.batch_size))
                chosen = next(batches)
            x, y = setup.batch_of(setup.train, chosen)
            if setup.change_batch is not None:
                x, y = setup.change_batch(step, x, y)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * setup.rate_factor(step, setup.steps)
            with _autocast(setup.autocast):
                prediction = setup.predict(network(x))
                loss = setup.loss(prediction, y)
            loss.backward()
            if setup.clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), setup.clip)
            optimizer.step()
            if setup.clears_gradients:
                optimizer.zero_grad()
            losses.append(float(loss.detach()))
            watch.step(step, loss=loss, output=prediction, target=y)
    if watched.problems:
        print(f"{folder}: {'; '.join(watched.problems)}", flush=True)
    if not setup.steps:
        _save(network, folder / "half.pt")
    _save(network, folder / "trained.pt")
    return {"losses": losses, "test_error": _plain(setup.test_error(network))}


def capture_again(setup: Setup, folder: Path) -> dict[str, Any]:
    """Write the reports from the weights in the folder; return the numbers of the harness's own."""
    network = setup.make()
    numbers = {}
    for name in REPORTS:
        weights = "trained" if name == "test" else name
        network.load_state_dict(torch.load(folder / f"{weights}.pt", weights_only=True))
        batches = setup.captured(setup.test if name == "test" else setup.train)
        step = {"untrained": 0, "half": setup.steps // 2}.get(name, setup.steps or None)
        record = _capture(setup, network, batches, step)
        ft.JsonFile(folder / f"{name}.json").write(record)
        numbers[name] = measure_numbers(setup, network, batches, record)
    return numbers


def _capture(
    setup: Setup, network: nn.Module, batches: Sequence[tuple[torch.Tensor, torch.Tensor]], step: int
) -> ft.CaptureRecord:
    summary = {"weights": "untrained" if step == 0 and setup.steps else "given"}
    if "target" not in inspect.signature(ft.capture).parameters:
        return ft.capture(network, [x for x, _ in batches], step=step, summary=summary)
    return ft.capture(
        network,
        list(batches),
        inputs=0,
        target=1,
        prediction=lambda output, batch: (setup.predict(output), batch[1]),
        step=step,
        summary=summary,
    )


def _save(network: nn.Module, path: Path) -> None:
    # neuralop keeps how a network was made in its state, which is no tensor.
    state = {name: value for name, value in network.state_dict().items() if isinstance(value, torch.Tensor)}
    torch.save(state, path)


def _autocast(dtype: torch.dtype | None) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if dtype is None else torch.autocast("cpu", dtype)


def _plain(number: float) -> float | None:
    return number if math.isfinite(number) else None
