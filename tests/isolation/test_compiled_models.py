"""Compiled models are captured as they were written, stay compiled, and hooks cost what was promised."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.isolation.hooks import Hook
from fno_telemetry.tracing.events import CallEnded, Failed
from fno_telemetry.tracing.forward_trace import ForwardTrace

counters = pytest.importorskip("torch._dynamo.utils").counters


@pytest.fixture(autouse=True)
def _compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


class Graphs:
    """A compiler's backend that counts how often what it made runs."""

    def __init__(self):
        self.runs = 0

    def __call__(self, graph, inputs):
        def run(*args):
            self.runs += 1
            return graph.forward(*args)

        return run


def compiled(how, network, backend):
    if how == "torch.compile":
        return torch.compile(network, backend=backend)
    if how == "compile()":
        network.compile(backend=backend)
    elif how == "child":
        network.blocks[0] = torch.compile(network.blocks[0], backend=backend)
    elif how == "child.compile()":
        network.blocks[0].compile(backend=backend)
    elif how == "forward":
        network.forward = torch.compile(network.forward, backend=backend)
    return network


def frames():
    return dict(counters["frames"])


WAYS = ["torch.compile", "compile()", "child", "child.compile()", "forward"]


@pytest.mark.parametrize("called_before", [True, False])
@pytest.mark.parametrize("how", WAYS)
def test_a_compiled_model_is_recorded_like_the_bare_one_and_stays_compiled(
    how, called_before, small_network, images
):
    network = small_network("fno_vanilla").eval()
    expected = ft.capture(network, images)
    graphs = Graphs()
    model = compiled(how, network, graphs)
    with torch.no_grad():
        first = model(images) if called_before else None
        before, runs = frames(), graphs.runs
        record = ft.capture(model, images)
        ft.map_model(model, images)
        # Nothing was compiled and nothing compiled ran.
        assert (frames(), graphs.runs) == (before, runs)
        after = model(images)
        assert graphs.runs == runs + 1
        assert frames() == {"total": 1, "ok": 1}
    assert (record.modules, record.blocks) == (expected.modules, expected.blocks)
    assert (record.not_fired, record.outputs) == ((), expected.outputs)
    assert first is None or torch.equal(first, after)


def test_gradients_of_a_compiled_model_are_those_of_the_bare_one(small_network, images):
    def loss(output, batch):
        return output.square().mean()

    network = small_network("fno_vanilla").eval()
    expected = ft.capture(network, images, loss=loss)
    graphs = Graphs()
    record = ft.capture(
        torch.compile(network, backend=graphs), images, loss=torch.compile(loss, backend=graphs)
    )
    assert graphs.runs == 0
    assert (record.modules, record.blocks) == (expected.modules, expected.blocks)
    assert record.summary["loss"] == expected.summary["loss"]


def test_the_callers_stance_of_the_compiler_is_put_back(small_network, images):
    network = small_network()
    model = torch.compile(network, backend="eager", dynamic=False)
    with torch.no_grad():
        model(images)
        with torch.compiler.set_stance("fail_on_recompile"):
            ft.capture(model, images)
            model(images)
            with pytest.raises(RuntimeError, match="fail_on_recompile"):
                model(images[:3])
        model(images[:3])


def test_a_capture_called_by_compiled_code_is_not_compiled(small_network, images):
    network = small_network()
    expected = ft.capture(network, images)
    records = []

    @torch.compile(backend="eager")
    def step(x):
        y = x * 2
        records.append(ft.capture(network, x))
        return y + 1

    assert torch.equal(step(images), images * 2 + 1)
    assert (records[0].modules, records[0].blocks) == (expected.modules, expected.blocks)


class Counts:
    """A listener that counts what it hears, and remembers what went wrong."""

    def __init__(self):
        self.calls, self.failures = [], []

    def on(self, event):
        if isinstance(event, CallEnded):
            self.calls.append(event.call.path)
        elif isinstance(event, Failed):
            self.failures.append((event.where, event.error))


@pytest.mark.parametrize("called_before", [True, False])
def test_a_trace_follows_every_module_of_a_compiled_model_without_compiling(
    called_before, small_network, images
):
    network = small_network().eval()
    model = torch.compile(network, backend="eager")
    with torch.no_grad():
        expected = network(images)
        if called_before:
            model(images)
        before, counts = frames(), Counts()
        with ForwardTrace(model, counts) as trace:
            for _ in range(3):
                with trace.batch():
                    assert torch.equal(model(images), expected)
        assert frames() == before
        model(images)
    assert frames() == {"total": 1, "ok": 1}
    assert len(counts.calls) == 3 * len(set(counts.calls)) > 30
    assert counts.failures == []


def test_hooks_on_a_compiled_model_break_at_most_one_graph_each_and_compile_nothing_again(
    small_network, images
):
    network = small_network().eval()
    fired = []
    for module in network.modules():
        module.register_forward_pre_hook(Hook(lambda *args: fired.append(len(args))), with_kwargs=True)
        module.register_forward_hook(
            Hook(lambda *args: fired.append(len(args))), with_kwargs=True, always_call=True
        )
    model = torch.compile(network, backend="eager")
    with torch.no_grad():
        expected = network(images)
        hooked = {len(fired)}
        warm = []
        for _ in range(4):
            fired.clear()
            assert torch.equal(model(images), expected)
            hooked.add(len(fired))
            warm.append((frames(), dict(counters["graph_break"])))
    assert len(hooked) == 1, "every hook fires in every call"
    assert warm[0] == warm[3]
    assert 0 < sum(counters["graph_break"].values()) <= sum(1 for _ in network.modules())


PROGRAM = """
import sys
import torch
from torch import nn
import fno_telemetry as ft
from fno_telemetry.isolation.hooks import Hook

assert "torch._dynamo" not in sys.modules
x = torch.rand(3, 4)
model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)).eval()
ft.capture(model, x)
assert "torch._dynamo" not in sys.modules, "a capture imports no compiler"


class CompilesLater(nn.Module):
    def __init__(self):
        super().__init__()
        self.part, self.made = model, []

    def forward(self, x):
        if not self.made:
            self.made.append(torch.compile(self.part, backend="eager"))
        return self.made[0](x)


record = ft.capture(CompilesLater(), x)
assert [m.name for m in record.modules] == ["part.0", "part.1", "part.2"], record.modules
assert (record.not_fired, record.errors) == ((), ())

from torch._dynamo.utils import counters
torch._dynamo.reset()
counters.clear()
fired = []
for module in model.modules():
    module.register_forward_hook(Hook(lambda *args: fired.append(len(args))))
compiled = torch.compile(model, backend="eager")
torch.set_grad_enabled(False)
compiled(x)
frames = dict(counters["frames"])
for _ in range(3):
    compiled(x)
assert len(fired) == 4 * 4, fired
assert dict(counters["frames"]) == frames
assert sum(counters["graph_break"].values()) <= 4
"""


def test_a_model_that_is_compiled_in_the_middle_of_a_capture_is_recorded_whole(tmp_path):
    # In a program of its own, which has not imported the compiler before.
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(ft.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(program)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr


def test_not_fired_is_empty_for_parts_compiled_to_be_used_by_their_forward(images):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.GELU())
    model[0].forward = torch.compile(model[0].forward, backend="eager")
    record = ft.capture(model, images)
    assert [m.name for m in record.modules] == ["0", "1"]
    assert record.not_fired == ()
