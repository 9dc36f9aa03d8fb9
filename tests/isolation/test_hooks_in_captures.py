"""Hooks come off on every way out, other people's stay, and nothing that ran is kept alive."""

import contextlib
import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry import plugins
from fno_telemetry.quantities import Quantity
from fno_telemetry.statistics.contract import Summary


class Broken:
    """A statistic that raises where it is told to."""

    name = "broken"
    of = "tensor"
    needs = ()
    quantities = (Quantity(name="broken", title="broken"),)

    def __init__(self, where, error=ZeroDivisionError):
        self.where, self.error = where, error

    def measure(self, activation):
        self.fail("measure")
        return self

    def merge(self, other):
        self.fail("merge")
        return self

    def summarize(self, state, known):
        self.fail("summarize")
        return Summary({"broken": "five" if self.where == "value" else 5})

    def fail(self, where):
        if self.where == where:
            raise self.error("on purpose")


class Raises(nn.Module):
    """Raises from its third call on."""

    def __init__(self, error):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.error = error
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        y = self.layer(x)
        if self.calls > 2:
            raise self.error("on purpose")
        return y


def no_hook(hooks_of, model):
    return not any(hooks_of(model))


def test_no_hook_is_left_after_a_capture(small_network, images, hooks_of):
    model = small_network()
    ft.capture(model, images)
    ft.map_model(model, images)
    assert no_hook(hooks_of, model)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_no_hook_is_left_after_an_error_in_the_forward(error, hooks_of):
    model = nn.Sequential(Raises(error))
    with pytest.raises(error):
        ft.capture(model, [torch.rand(2, 4)] * 3)
    assert no_hook(hooks_of, model)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_no_hook_is_left_after_an_error_in_the_batches(error, small_network, images, hooks_of):
    def batches():
        yield images
        raise error("on purpose")

    model = small_network()
    with pytest.raises(error, match="on purpose"):
        ft.capture(model, batches())
    assert no_hook(hooks_of, model)


@pytest.mark.parametrize("option", ["forward", "progress", "layers"])
def test_no_hook_is_left_after_an_error_in_an_option(option, small_network, images, hooks_of):
    def failing(_):
        raise ValueError("on purpose")

    model = small_network()
    with pytest.raises((ValueError, ft.MapError)):
        ft.capture(model, images, **{option: ["nothing.like.it"] if option == "layers" else failing})
    assert no_hook(hooks_of, model)


def test_a_capture_works_after_one_that_failed(images, small_network):
    model = nn.Sequential(Raises(ValueError))
    x = torch.rand(2, 4)
    with pytest.raises(ValueError):
        ft.capture(model, [x] * 3)
    model[0].calls = -9
    assert ft.capture(model, [x] * 3).module("0.layer").shape == (6, 4)


def test_other_peoples_hooks_stay_and_are_effective(hooks_of):
    seen = []
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    model[0].register_forward_hook(lambda module, args, output: output * 0 + 3)
    model[1].register_full_backward_hook(lambda module, into, out: seen.append("backward"))
    model[1].register_forward_hook(
        lambda *_, **__: seen.append("forward"), always_call=True, with_kwargs=True
    )
    before = hooks_of(model)
    record = ft.capture(model, torch.rand(2, 4))
    assert hooks_of(model) == before
    # Once in structure detection, once in the capture.
    assert seen == ["forward", "forward"]
    assert record.module("0").stats["mean"] == 3.0
    model(torch.rand(2, 4)).sum().backward()
    assert seen[-1] == "backward"


def test_what_a_hook_returns_never_replaces_an_output(small_network, images):
    model = small_network().eval()
    outputs = []
    with torch.no_grad():
        expected = model(images)
    ft.capture(model, images, forward=lambda x: outputs.append(model(x)))
    assert torch.equal(outputs[-1], expected)


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
@pytest.mark.parametrize("where", ["measure", "merge", "summarize", "value"])
def test_a_statistic_that_raises_costs_only_its_own_numbers(where, error, small_network, images):
    model = small_network()
    batches = [images[:4], images[4:]]
    expected = ft.capture(model, batches)
    names = [*plugins.names("statistics")]
    known = [plugins.load("statistics", name)() for name in names]
    outputs = []
    record = ft.capture(
        model, batches, statistics=[Broken(where, error), *known], forward=lambda x: outputs.append(model(x))
    )
    assert len(outputs) == 3
    errors = {entry["name"]: entry["reason"] for entry in record.errors}
    assert {"input/broken", "output/broken", "lifter/broken"} <= errors.keys()
    message = "ValueError" if where == "value" else f"{error.__name__}: on purpose"
    assert all(message in reason for reason in errors.values())
    for one, other in zip(record.modules, expected.modules, strict=True):
        assert {**one.stats} == {"broken": None, **other.stats}
        assert "raised" in one.reasons["broken"]
        assert one.spectrum == other.spectrum
    assert (record.blocks, record.layers) == (expected.blocks, expected.layers)


def test_statistics_are_measured_without_gradients_and_without_autocast():
    seen = []

    class Looks(Broken):
        def measure(self, activation):
            product = torch.mm(activation.values.reshape(-1, 1), activation.values.reshape(1, -1))
            seen.append((product.dtype, torch.is_grad_enabled()))
            return self

    class Enables(nn.Identity):
        def forward(self, x):
            with torch.enable_grad():
                return self.child(x)

    model = Enables()
    model.child = nn.Linear(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        ft.capture(model, torch.rand(2, 4), statistics=[Looks("")])
    # The input, and what the child made; its parent returns that very tensor, measured once.
    assert seen == [(torch.float32, False)] * 2


def test_no_tensor_of_a_forward_stays_alive(small_network, images):
    model = nn.Sequential(small_network("stable_hybrid"), nn.Identity())
    alive = []

    def keep(module, args, output):
        alive.extend(weakref.ref(t) for t in (*args, output) if t is not images)

    for module in model.modules():
        module.register_forward_hook(keep)
    record = ft.capture(model, (batch.clone() for batch in images.split(3)))
    gc.collect()
    assert len(alive) > 50
    assert [r for r in alive if r() is not None] == []
    assert record.modules


def test_no_tensor_stays_alive_after_an_error():
    alive = []

    class Fails(Raises):
        def forward(self, x):
            alive.append(weakref.ref(x))
            return super().forward(x)

    model = nn.Sequential(Fails(ValueError))
    with contextlib.suppress(ValueError):
        ft.capture(model, (torch.rand(2, 4) for _ in range(3)))
    gc.collect()
    assert len(alive) == 4  # structure detection, and three batches
    assert [r for r in alive if r() is not None] == []


def copies_of(model):
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    return {
        "deepcopy": copy.deepcopy(model),
        "pickle": pickle.loads(pickle.dumps(model)),
        "torch.save": torch.load(saved, weights_only=False),
    }


def test_a_model_can_be_copied_and_saved_after_a_capture(small_network, images, hooks_of):
    model = small_network()
    ft.capture(model, images)
    for clone in copies_of(model).values():
        assert no_hook(hooks_of, clone)
        assert torch.equal(clone(images), model(images))


def test_copies_made_during_a_capture_record_nothing_and_lose_the_hooks(small_network, images, hooks_of):
    model = small_network()
    expected = ft.capture(model, images)
    copies = {}

    def forward(x):
        copies.update(copies_of(model))
        for clone in copies.values():
            clone(x + 1)
        return model(x)

    record = ft.capture(model, images, forward=forward)
    assert (record.modules, record.not_fired, record.errors) == (expected.modules, (), ())
    assert copies.keys() == {"deepcopy", "pickle", "torch.save"}
    for clone in copies.values():
        assert torch.equal(clone(images), model(images))
        assert no_hook(hooks_of, clone)


def test_a_model_that_shares_a_module_records_only_while_it_runs_itself():
    shared = nn.GELU()
    model = nn.Sequential(nn.Linear(4, 4), shared)
    other = nn.Sequential(nn.Linear(4, 4), shared)
    alone = torch.rand(2, 4)

    def forward(x):
        return model(x)

    def batches():
        yield alone
        other(torch.full((50, 4), 7.0))
        yield alone

    record = ft.capture(model, batches(), forward=forward)
    assert record.module("1").shape == (4, 4)
    assert [r.call for r in record.modules if r.name == "1"] == [0]
