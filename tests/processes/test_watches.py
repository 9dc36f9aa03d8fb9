"""Watched trainings of two processes: records of all of them, and nothing that hangs."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.report import as_document
from fno_telemetry.testing.in_memory_sink import InMemorySink
from support import process_watches as watches
from support.alike_documents import list_differences
from support.process_groups import run_in_processes

SECONDS = 120
NAMES = (
    "with_ddp",
    "with_ddp_and_unequal_batches",
    "without_a_watch",
    "with_fsdp_by_part",
    "with_fsdp_as_a_whole",
    "with_fsdp_alone",
    "with_a_layer_that_one_skips",
    "with_an_idle_process",
    "with_a_watch_in_the_first_process",
    "with_other_options",
    "with_a_process_that_ends_early",
    "with_several_forwards",
)
Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("watches")
    return run_in_processes("support.process_watches", NAMES, 2, folder, seconds=SECONDS)


def read(found: Found, name: str) -> list[dict[str, Any]]:
    """Return the records of the first process; no other one has any, and none has a problem."""
    assert [own[name]["problems"] for own in found] == [[], []]
    assert all(own[name]["records"] == [] for own in found[1:])
    return list(found[0][name]["records"])


def train_alone(size: int | None) -> list[dict[str, Any]]:
    """Return the records of one process that trains on the batches of both."""
    network, sink = watches.make_operator(), InMemorySink()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    with ft.watch(network, [sink], every=1) as watch:
        for step in range(watches.STEPS):
            x, y = watches.join_batches(step, 2, size)
            output = network(x)
            loss = (output - y).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
            watch.step(step, loss=loss, output=output, target=y)
    return [as_document(record) for record in sink.records]


def test_records_of_equal_batches_are_those_of_one_process_with_all_of_them(found: Found) -> None:
    alone, together = train_alone(2), read(found, "with_ddp")
    assert [record["provenance"]["processes"]["samples"] for record in together] == [[2, 2]] * 3
    # One value by batch, and a batch of one process has the samples of both.
    otherwise = ("layers", "forwards", "batch_size", "n_modules")  # DDP is a module
    for one, other in zip(alone, together, strict=True):
        assert list(list_differences(one, other, otherwise, least=1e-8)) == []


def test_extremes_are_kept_by_process(found: Found) -> None:
    for step, record in enumerate(read(found, "with_ddp_and_unequal_batches")):
        batches = [watches.make_batch(rank, step)[0].numpy() for rank in range(2)]
        ends = [[float(batch.min()), float(batch.max())] for batch in batches]
        assert record["input"]["process_extremes"] == ends
        assert record["summary"]["n_samples"] == 3 and record["input"]["shape"][0] == 3


class ByHand:
    """A training of both processes in one, of which tensors are kept: losses are meant over processes."""

    def __init__(self, network: nn.Module, size: int | None) -> None:
        self.network = network
        self.size = size
        self.outputs: dict[str, list[torch.Tensor]] = {}
        for name, module in network.named_modules():
            module.register_forward_hook(lambda _, __, output, name=name: self._keep(name, output))
        self.first = self._copy()

    def _keep(self, name: str, output: torch.Tensor) -> None:
        output.retain_grad()
        self.outputs.setdefault(name, []).append(output)

    def _copy(self) -> dict[str, np.ndarray]:
        return {name: p.detach().numpy().astype(complex) for name, p in self.network.named_parameters()}

    def run(self) -> Iterator[tuple[dict[str, Any], dict[str, Any], float]]:
        """Yield the gradients, the weights before and the loss of each step, after its update."""
        optimizer = torch.optim.SGD(self.network.parameters(), lr=0.05)
        for step in range(watches.STEPS):
            self.outputs.clear()
            before = self._copy()
            losses = []
            for rank in range(2):
                x, y = watches.make_batch(rank, step, self.size)
                losses.append((self.network(x) - y).square().mean())
            loss = sum(losses) / 2
            loss.backward()
            gradients = {n: p.grad.numpy().astype(complex).copy() for n, p in self.network.named_parameters()}
            nn.utils.clip_grad_norm_(self.network.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
            yield gradients, before, loss.item()


def norm(arrays: Any) -> float:
    return math.sqrt(sum(float(np.square(np.abs(array)).sum()) for array in arrays))


@pytest.mark.parametrize(
    ("name", "make", "size"),
    [
        ("with_ddp", watches.make_operator, 2),
        ("with_ddp_and_unequal_batches", watches.make_operator, None),
        ("with_fsdp_by_part", watches.make_plain, 2),
        ("with_fsdp_as_a_whole", watches.make_plain, 2),
    ],
)
def test_gradients_and_updates_are_those_of_tensors_kept_by_hand(
    found: Found, name: str, make: Any, size: int | None
) -> None:
    by_hand = ByHand(make(), size)
    records = read(found, name)
    checked = 0
    for record, (gradients, before, loss) in zip(records, by_hand.run(), strict=True):
        after = by_hand._copy()
        assert record["summary"]["loss"] == pytest.approx(loss, rel=1e-5)
        for module in record["modules"]:
            outputs = by_hand.outputs.get(module["name"])
            stats = module["stats"]
            if outputs is None:
                continue
            values = np.concatenate([output.detach().numpy().reshape(-1) for output in outputs])
            of_output = np.concatenate([output.grad.numpy().reshape(-1) for output in outputs])
            expected = {
                "min": values.min(),
                "max": values.max(),
                "mean": values.mean(dtype=float),
                "rms": math.sqrt(np.square(values.astype(float)).mean()),
                "output_grad_rms": math.sqrt(np.square(of_output.astype(float)).mean()),
            }
            own = [n for n in gradients if n.rpartition(".")[0] == module["name"] and module["name"]]
            if own:
                weights = norm(before[n] for n in own)
                expected |= {
                    "grad_norm": norm(gradients[n] for n in own),
                    "update_to_weight": norm(after[n] - before[n] for n in own) / weights,
                    "weight_norm": weights,
                }
                checked += 1
            assert {key: stats[key] for key in expected} == pytest.approx(expected, rel=2e-5, abs=1e-7)
        for parameter in record["parameters"]:
            own, stats = parameter["name"], parameter["stats"]
            if by_hand.first[own].any():
                moved = norm([after[own] - by_hand.first[own]]) / norm([by_hand.first[own]])
                assert stats["moved"] == pytest.approx(moved, rel=2e-4)
            else:
                assert stats["moved"] is None
            if own == "scale":
                assert stats["grad_norm"] == pytest.approx(norm([gradients[own]]), rel=2e-5)
                assert stats["weight_norm"] == pytest.approx(norm([after[own]]), rel=2e-5)
                update = norm([after[own] - before[own]]) / norm([before[own]])
                assert stats["update_to_weight"] == pytest.approx(update, rel=2e-4)
    assert checked >= 9


def test_a_training_is_the_same_with_and_without_a_watch(found: Found) -> None:
    for own in found:
        watched, alone = own["with_ddp_and_unequal_batches"], own["without_a_watch"]
        assert watched["losses"] == alone["losses"] and watched["weights"] == alone["weights"]


def test_of_the_first_process_alone_spread_parameters_have_no_norms(found: Found) -> None:
    for record in read(found, "with_fsdp_alone"):
        layers = {module["name"]: module for module in record["modules"]}
        for key in ("grad_norm", "weight_norm", "update_to_weight"):
            assert layers["second"]["stats"][key] is None
            assert "spread over several processes" in layers["second"]["reasons"][key]
        assert record["summary"]["n_samples"] == 2 and "process_extremes" not in record["input"]


def test_a_layer_that_one_process_skips_is_that_of_the_other(found: Found) -> None:
    records = read(found, "with_a_layer_that_one_skips")
    assert [record["summary"]["checkpoint_step"] for record in records] == [0, 1, 2, 3]
    for record in records:
        layers = {module["name"]: module for module in record["modules"]}
        assert list(layers) == ["first", "some", "#relu", "last"]
        assert layers["first"]["shape"][0] == layers["last"]["shape"][0] == 2
        assert layers["some"]["shape"][0] == 1
        assert layers["some"]["process_extremes"][0] == [None, None]
        assert not record["not_fired"]


def test_a_step_that_one_process_does_not_run_is_left_out(found: Found) -> None:
    first, idle = (own["with_an_idle_process"] for own in found)
    assert first["steps"] == [0, 2] and idle["steps"] == []
    assert first["problems"] == ["step 1 is not recorded: one of the processes could not measure it"]


def test_a_watch_in_one_process_alone_waits_once_and_says_so(found: Found) -> None:
    first, other = (own["with_a_watch_in_the_first_process"] for own in found)
    assert first["steps"] == [0, 1, 2] and other["steps"] == []
    why = "only 1 of 2 processes watch the model"
    assert first["problems"] == [f"records are those of the first process alone from here on: {why}"]
    assert all(f"the numbers are those of the first process alone: {why}" in w for w in first["warnings"])
    assert first["seconds"] < 20


def test_processes_that_watch_with_other_options_are_told(found: Found) -> None:
    for own, steps in zip(found, ([0, 1, 2], []), strict=True):
        [problem], recorded = own["with_other_options"]
        assert problem.endswith("the processes watch with different options") and recorded == steps


def test_a_process_that_has_ended_its_watch_is_not_waited_for(found: Found) -> None:
    first, other = (own["with_a_process_that_ends_early"] for own in found)
    assert first["steps"] == [0, 1, 2, 3] and other["problems"] == []
    assert first["problems"] == [
        "records are those of the first process alone from here on: another process has ended its watch"
    ]


@pytest.mark.parametrize("name", ["with_a_process_that_dies", "with_the_first_process_that_dies"])
def test_a_process_that_dies_is_waited_for_no_longer_than_the_group_does(name: str, tmp_path: Path) -> None:
    last = name == "with_a_process_that_dies"
    [own] = run_in_processes(
        "support.process_watches", (name,), 2, tmp_path, seconds=60, group_seconds=6, ranks=[0 if last else 1]
    )
    assert own["seconds"] < 20
    assert own["steps"] == ([0, 1, 2] if last else [])
    assert len(own["problems"]) == 1 and "alone from here on" in own["problems"][0]


def test_forwards_of_all_processes_make_the_record_and_a_validation_is_of_the_first(found: Found) -> None:
    training, validation = read(found, "with_several_forwards")
    assert training["training"]["forwards"] == 3 and training["provenance"]["processes"]["samples"] == [1, 4]
    assert len(next(iter(training["layers"].values()))) == 3
    assert validation["training"]["stage"] == "val" and validation["summary"]["n_samples"] == 1
    assert not training["warnings"] and "first process alone" in validation["warnings"][0]
