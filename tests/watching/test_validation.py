"""Validations in a watched loop: records of their own, of the first forwards after a due step."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.testing.in_memory_sink import InMemorySink

STEPS = 12


def make() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.GELU(), nn.Dropout(0.2), nn.Conv2d(4, 1, 1)]
    return nn.Sequential(*layers)


def batch(number: int) -> torch.Tensor:
    return torch.randn(3, 1, 6, 5, generator=torch.Generator().manual_seed(number))


def step_once(network: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> torch.Tensor:
    x = batch(number)
    loss = (network(x) - x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def validate(network: nn.Module, batches: int = 3) -> torch.Tensor:
    network.eval()
    with torch.no_grad():
        losses = [(network(batch(-1 - i)) - batch(-1 - i)).square().mean() for i in range(batches)]
    network.train()
    return sum(losses) / batches


def train(network, watch=None, every=3, ends=False, called=None) -> list[float]:
    """Train, and validate after every so many steps; return all losses."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    called = called or network
    losses = []
    for step in range(STEPS):
        losses.append(step_once(called, optimizer, step).item())
        if watch is not None:
            watch.step(step, loss=losses[-1])
        if step % every == every - 1:
            loss = validate(called)
            losses.append(loss.item())
            if watch is not None and ends:
                watch.validation(loss=loss)
    return [*losses, *(value for own in optimizer.state.values() for value in own.values())]


def steps_of(sink: InMemorySink, stage: str) -> list[int | None]:
    return [record.step for record in sink.records if record.stage == stage]


def count_hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


@pytest.fixture
def sink() -> InMemorySink:
    return InMemorySink()


@pytest.mark.parametrize(
    ("options", "trained", "validated"),
    [
        ({"every": 1}, list(range(STEPS)), [2, 5, 8, 11]),
        ({"every": 4}, [0, 4, 8], [2, 5, 8]),
        ({"every": 100}, [0], [2]),
        ({"every": None, "steps": [6]}, [6], [8]),
        ({"every": 1, "validation_batches": 0}, list(range(STEPS)), []),
    ],
)
@pytest.mark.parametrize("ends", [False, True], ids=["by the next step", "by a call"])
def test_the_first_validation_after_a_recorded_step_is_recorded(sink, options, trained, validated, ends):
    results = []
    for watched in (False, True):
        network = make()
        if watched:
            with ft.watch(network, [sink], **options) as watch:
                losses = train(network, watch, ends=ends)
            assert watch.problems == []
        else:
            losses = train(network)
        results.append((*losses, *network.state_dict().values(), torch.get_rng_state()))
    assert all(
        torch.equal(torch.as_tensor(one), torch.as_tensor(two)) for one, two in zip(*results, strict=True)
    )
    assert steps_of(sink, "train") == trained
    assert steps_of(sink, "val") == validated
    assert count_hooks(network) == 0


def test_a_record_is_that_of_a_capture_of_the_first_batches(sink):
    network = make()
    with ft.watch(network, [sink], every=1, validation_batches=2) as watch:
        train(network, watch)
    record = sink.records[-1]
    assert (record.step, record.stage, record.label) == (11, "val", "step11.val")
    captured = ft.capture(network, [batch(-1), batch(-2)])
    assert record.training == {"stage": "val", "forwards": 2, "dropped": 0}
    assert record.summary["n_samples"] == 6
    assert record.parameters == ()
    assert [module.place for module in record.modules] == [module.place for module in captured.modules]
    for one, other in zip(captured.modules, record.modules, strict=True):
        assert one.stats.keys() == other.stats.keys()
        for key, value in one.stats.items():
            assert other.stats[key] == pytest.approx(value, rel=1e-6, abs=1e-12), (one.name, key)
    with torch.no_grad():
        outputs = [network.eval()(batch(-1 - i)).double().numpy() for i in range(2)]
    rms = math.sqrt(np.mean(np.square(np.concatenate(outputs))))
    assert record.output.stats["rms"] == pytest.approx(rms, rel=1e-6)


def test_loss_and_accuracy_are_those_that_the_loop_gives(sink):
    network, optimizer = make(), None
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    output, target = batch(1), batch(2)
    with ft.watch(network, [sink], every=1) as watch:
        watch.validation(loss=1.0)  # before the first step
        step_once(network, optimizer, 0)
        watch.step(0)
        loss = validate(network)
        watch.validation(loss=loss, output=output, target=target)
        watch.validation(loss=9.0)  # there is none any more
        step_once(network, optimizer, 1)
        watch.step(1)
    assert [(record.step, record.stage) for record in sink.records] == [
        (0, "train"),
        (0, "val"),
        (1, "train"),
    ]
    record = sink.records[1]
    assert record.summary["loss"] == pytest.approx(float(loss))
    error = np.linalg.norm(output - target) / np.linalg.norm(target)
    assert record.accuracy.stats["relative_l2"] == pytest.approx(error, rel=1e-6)
    assert watch.problems == []


def test_a_validation_that_never_runs_in_eval_mode_is_told(sink):
    network = make()
    with ft.watch(network, [sink], every=2) as watch:
        network(batch(0))
        watch.step(0)
        watch.validation(loss=1.0)
    assert watch.problems == [
        "the validation after step 0 is not recorded: the forward of the model was not called in eval mode"
    ]


def test_only_measured_forwards_have_hooks_on_all_modules(sink):
    network = make()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    counts = []
    with ft.watch(network, [sink], every=1, validation_batches=2) as watch:
        step_once(network, optimizer, 0)
        watch.step(0)
        network.eval()
        inside = network[2].register_forward_hook(lambda *_: counts.append(count_hooks(network[0])))
        for number in range(4):
            network(batch(number))
        network.train()
        network(batch(5))
    inside.remove()
    # The first one is the forward of the plan; after two measured ones, the next step is due.
    assert counts == [2, 2, 2, 0, 0, 2]
    assert steps_of(sink, "val") == [0]


def test_no_activation_of_a_validation_is_alive_after_it(sink):
    network = make()
    alive = []
    network[0].register_forward_hook(lambda module, args, output: alive.append(weakref.ref(output)))
    with ft.watch(network, [sink], every=1) as watch:
        network(batch(0))
        watch.step(0)
        network.eval()
        network(batch(1))
        gc.collect()
        assert [one() for one in alive] == [None] * len(alive)
    assert steps_of(sink, "val") == [0]


class Differs(nn.Module):
    """Has a layer that only training calls, and one that only validation calls."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.trained, self.validated = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.fails_at: int | None = None
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls == self.fails_at:
            raise ValueError("no")
        x = self.first(x)
        return self.trained(x) if self.training else self.validated(x)


def test_a_network_that_runs_otherwise_in_eval_mode_is_recorded_in_both(sink):
    network = Differs()
    with ft.watch(network, [sink], every=1) as watch:
        for step in range(2):
            network(torch.randn(2, 3)).sum().backward()
            watch.step(step)
            network.eval()
            network(torch.randn(2, 3))
            network.train()
    assert watch.problems == []
    names = [[module.name for module in record.modules] for record in sink.records]
    assert names == [["first", "trained"], ["first", "validated"]] * 2
    assert [(record.step, record.stage) for record in sink.records][-1] == (1, "val")


def test_a_validation_that_raises_is_left_out_and_the_next_one_is_recorded(sink):
    network = Differs()
    with ft.watch(network, [sink], every=1) as watch:
        for step in range(2):
            network(torch.randn(2, 3)).sum().backward()
            watch.step(step)
            network.eval()
            network(torch.randn(2, 3))
            network.fails_at = network.calls + 1 if step == 0 else None
            if step == 0:
                with pytest.raises(ValueError, match="no"):
                    network(torch.randn(2, 3))
            network.train()
    assert steps_of(sink, "train") == [0, 1]
    assert steps_of(sink, "val") == [1]
    assert count_hooks(network) == 0


def test_a_compiled_network_has_the_same_graphs_and_a_record_of_its_validation(sink):
    torch._dynamo.reset()
    results = []
    for watched in (False, True):
        network, graphs = make(), []

        def backend(graph, inputs, graphs=graphs):
            graphs.append(len(list(graph.graph.nodes)))
            return graph.forward

        called = torch.compile(network, backend=backend, fullgraph=True)
        if watched:
            with ft.watch(called, [sink], every=4, validation_batches=1) as watch:
                losses = train(network, watch, called=called)
            assert watch.problems == []
        else:
            losses = train(network, called=called)
        results.append((graphs, losses, network.state_dict()))
    assert results[0][0] == results[1][0]
    same = zip(results[0][1], results[1][1], strict=True)
    assert all(torch.equal(torch.as_tensor(one), torch.as_tensor(other)) for one, other in same)
    assert steps_of(sink, "val") == [2, 5, 8]
    assert all(record.errors == () for record in sink.records)
    assert sink.records[-1].module("4").stats["rms"] > 0
    torch._dynamo.reset()


def test_forwards_without_gradients_are_no_part_of_a_step_that_has_others(sink):
    network = nn.Sequential(nn.Linear(3, 1))
    with ft.watch(network, [sink], every=1) as watch:
        for step in range(2):
            with torch.no_grad():
                network(torch.ones(5, 3))  # as of a teacher
            network(torch.ones(2, 3)).sum().backward()
            with torch.no_grad():
                network(torch.ones(7, 3))
            watch.step(step)
        with torch.no_grad():
            network(torch.ones(7, 3))
        watch.step(2)
    assert [record.summary["n_samples"] for record in sink.records] == [2, 2, 7]
    assert [record.training["forwards"] for record in sink.records] == [1, 1, 1]
    assert sink.records[1].module("0").stats["grad_norm"] > 0
    assert sink.records[0].module("0").stats["update_to_weight"] == 0
