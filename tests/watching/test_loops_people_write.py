"""Loops that differ from the plain one: they run as without a watch, and their numbers are right or null."""

import contextlib
import copy
import gc
import math
import threading
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import fno_telemetry as ft
from fno_telemetry.testing.in_memory_sink import InMemorySink
from fno_telemetry.watching.schedule import Schedule


@pytest.fixture
def sink() -> InMemorySink:
    return InMemorySink()


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


def fields(step: int) -> torch.Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(step))


def count_hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def rms(tensor: torch.Tensor) -> float:
    return float(tensor.double().square().mean().sqrt())


@pytest.mark.parametrize("kind", ["spectral_norm", "weight_norm", "orthogonal"])
def test_a_parametrized_layer_trains_as_without_and_is_recorded(sink, kind):
    results = []
    for watched in (False, True):
        network = make()
        getattr(parametrizations, kind)(network[0])
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        watch = ft.watch(network, [sink], every=1) if watched else None
        for step in range(4):
            network(fields(step)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if watch is not None:
                watch.step(step)
        if watch is not None:
            watch.close()
            assert watch.problems == []
        results.append([tensor.clone() for tensor in network.state_dict().values()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    assert [record.step for record in sink.records] == [0, 1, 2, 3]
    stats = sink.records[0].module("0").stats
    assert stats["grad_norm"] > 0 and stats["update_to_weight"] > 0
    names = {parameter.name for parameter in sink.records[0].parameters}
    assert names >= {"0.bias", "2.weight"} and any(name.startswith("0.parametrizations.") for name in names)


def test_a_penalty_of_gradients_is_not_taken_for_the_loss(sink):
    network = make()
    x = fields(0).requires_grad_()
    with ft.watch(network, [sink], every=1) as watch:
        output = network(x)
        [slope] = torch.autograd.grad(output.sum(), x, create_graph=True)
        ((output**2).mean() + 0.1 * slope.square().mean()).backward()
        gradients = [p.grad.clone() for p in network[2].parameters()]
        torch.autograd.grad(network[2](torch.ones(1, 5)).sum(), network[2].weight)
        nn.utils.clip_grad_norm_(network.parameters(), 1e-4)
        watch.step(0)
    again = make()
    kept = []
    again[2].register_forward_hook(lambda module, args, made: (made.retain_grad(), kept.append(made))[1])
    x = fields(0).requires_grad_()
    output = again(x)
    [slope] = torch.autograd.grad(output.sum(), x, create_graph=True)
    kept[0].grad = None
    ((output**2).mean() + 0.1 * slope.square().mean()).backward()
    stats = sink.records[0].module("2").stats
    assert stats["grad_norm"] == pytest.approx(math.hypot(*(float(g.norm()) for g in gradients)), rel=1e-6)
    assert stats["output_grad_rms"] == pytest.approx(rms(kept[0].grad), rel=1e-6)


def test_of_two_backwards_the_last_one_counts(sink):
    network = make()
    with ft.watch(network, [sink], every=1) as watch:
        output = network(fields(0))
        output.square().mean().backward(retain_graph=True)
        (0.25 * output).mean().backward()
        watch.step(0)
    stats = sink.records[0].module("2").stats
    assert stats["output_grad_rms"] == pytest.approx(0.25 / output.numel(), rel=1e-6)
    norm = math.hypot(*(float(p.grad.norm()) for p in network[2].parameters()))
    assert stats["grad_norm"] == pytest.approx(norm, rel=1e-6)


def test_an_optimizer_that_runs_in_the_backward_leaves_no_gradients(sink):
    network = make()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in network.parameters()}

    def step(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    with ft.watch(network, [sink], every=1) as watch:
        network(fields(0)).square().mean().backward()
        watch.step(0)
    layer = sink.records[0].module("2")
    assert layer.stats["grad_norm"] is None
    assert layer.reasons["grad_norm"] == "no backward of this step left gradients in the parameters"
    assert layer.stats["update_to_weight"] > 0


def test_another_thread_may_run_the_model(sink):
    network = make()
    ends = threading.Event()
    errors = []

    def serve():
        try:
            while not ends.is_set():
                network(fields(9))
        except Exception as error:  # noqa: BLE001 - the test tells of it
            errors.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ft.watch(network, [sink], every=1) as watch:
            for step in range(5):
                network(fields(step)).sum().backward()
                watch.step(step)
    finally:
        ends.set()
        thread.join(30)
    assert errors == [] and watch.problems == [] and count_hooks(network) == 0
    assert [record.training["forwards"] for record in sink.records] == [1] * 5


class Interrupted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(3, 1), 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 2:
            raise KeyboardInterrupt
        return self.layer(x)


@pytest.mark.parametrize("closes", [False, True])
def test_an_interrupt_in_a_due_forward_leaves_nothing_behind(sink, closes):
    network = Interrupted()
    watch = ft.watch(network, [sink], every=1)
    network(fields(0))
    watch.step(0)
    with pytest.raises(KeyboardInterrupt):
        network(fields(1))
    if closes:
        watch.close()
    else:
        network(fields(1))
        watch.step(1)
        watch.close()
        assert [record.step for record in sink.records] == [0, 1]
    assert count_hooks(network) == 0
    assert torch._C._len_torch_function_stack() == 0
    assert watch.problems == []


@pytest.mark.parametrize("where", ["arguments by name", "inside"])
def test_float16_is_noticed_wherever_it_is(sink, where):
    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x):
            inside = torch.autocast("cpu", torch.float16) if where == "inside" else contextlib.nullcontext()
            with inside:
                return self.layer(x)

    network = Halved()
    with ft.watch(network, [sink], every=1) as watch:
        with torch.autocast("cpu", torch.float16, enabled=where != "inside"):
            output = network(x=fields(0))
        (output.float().mean() * 1024).backward()
        watch.step(0)
    layer = sink.records[0].module("layer")
    assert layer.stats["grad_norm"] is None and "give the scaler" in layer.reasons["grad_norm"]


def test_a_forward_that_raised_is_not_the_one_that_is_dumped(tmp_path):
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x):
            if len(x) == 7:
                raise ValueError("seven")
            return self.layer(x)

    network = Picky()
    with ft.watch(network, every=None, on_nonfinite="dump", folder=tmp_path) as watch:
        refused = torch.randn(7, 3)
        alive = weakref.ref(refused)
        with pytest.raises(ValueError, match="seven"):
            network(refused)
        del refused
        network(torch.full((4, 3), math.nan))
        watch.step(0)
        gc.collect()
        assert alive() is None
    [record] = ft.load_history(tmp_path / "nonfinite.step0.jsonl")
    assert record.summary["n_samples"] == 4
    assert "neither is its input" in watch.problems[0]


def test_what_a_loop_gives_wrongly_is_noted_and_not_raised(sink):
    def every(step):
        return 1 // (step - 3) == 5

    network = make()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with ft.watch(network, [sink], every=every, steps=[0], optimizer=optimizer) as watch:
        del optimizer.param_groups[0]["lr"]
        for step in range(5):
            network(fields(step))
            watch.step(step)
    assert [problem.partition(":")[0] for problem in watch.problems] == [
        "the learning rates cannot be read",
        "the schedule cannot be read",
    ]
    assert "learning_rates" not in sink.records[0].training


def test_a_watch_that_was_not_closed_keeps_no_model_alive():
    network = make()
    watch = ft.watch(network, every=1)
    alive = weakref.ref(network)
    del network, watch
    gc.collect()
    assert alive() is None


def test_a_loop_that_calls_something_else_is_told_so():
    network = make()
    with ft.watch(network, every=1) as watch:
        network.forward(fields(0))
        watch.step(0)
    [problem] = watch.problems
    assert problem.startswith("no step was recorded: the forward of the model was never called")


def test_a_loop_that_never_names_its_steps_is_told_so(sink):
    network = make()
    with ft.watch(network, [sink], every=1) as watch:
        for step in range(3):
            network(fields(step)).mean().backward()
    [problem] = watch.problems
    assert problem.startswith("no step was recorded: the model ran, but `watch.step` was never called")
    assert sink.records == []


def test_an_error_in_the_first_step_is_all_that_is_said(sink):
    network = make()
    with pytest.raises(ZeroDivisionError), ft.watch(network, [sink], every=1) as watch:
        network(fields(0)).mean().backward()
        raise ZeroDivisionError
    assert watch.problems == []


def test_a_function_is_not_asked_about_millions_of_steps():
    asked = []
    schedule = Schedule(every=lambda step: asked.append(step))
    assert not schedule.is_due_between(0, 5_000_000)
    assert len(asked) == 10_000 and asked[-1] == 5_000_000


def test_the_step_after_a_due_one_can_be_asked_for_while_that_one_runs(sink):
    network = make()
    with ft.watch(network, [sink], every=10) as watch:
        for step in range(4):
            network(fields(step))
            if step == 0:
                watch.capture_now()
            watch.step(step)
    assert [record.step for record in sink.records] == [0, 1]


def test_a_network_with_two_forwards_before_one_backward(sink):
    network = make()
    with ft.watch(network, [sink], every=1) as watch:
        real, made = network(fields(0)), network(fields(1))
        (real.mean() - made.mean()).backward()
        watch.step(0)
    assert watch.problems == []
    stats = sink.records[0].module("2").stats
    assert stats["output_grad_rms"] == pytest.approx(1 / real.numel(), rel=1e-6)
    assert copy.copy(stats)["grad_norm"] > 0
