"""Plans give the numbers of a forward that is followed by functions; a forward that differs is noticed."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from fno_telemetry.architectures.layers import SpectralConvolution
from support.both_ways import assert_alike, capture_both_ways
from support.notes import Notes


class Block(nn.Module):
    """Adds a spectral and a local branch in one of several ways."""

    def __init__(self, add):
        super().__init__()
        self.spectral, self.local = SpectralConvolution(4, 4, 3), nn.Conv2d(4, 4, 1)
        self.gate = nn.Parameter(torch.rand(4, 1, 1))
        self.act = nn.GELU()
        self.add = add

    def forward(self, x):
        return self.add(self, x)


def overwrite_input(block, x):
    x = x * 1.0
    x += block.spectral(x) + block.local(x)
    return x


def overwrite_branch(block, x):
    s = block.spectral(x)
    s += block.local(x)
    return functional.relu(s, inplace=True)


def write_through_data(block, x):
    s, t = block.spectral(x), block.local(x)
    s.data.mul_(0.5)
    return functional.gelu(s + t)


WAYS = {
    "plain": lambda b, x: b.spectral(x) + b.local(x),
    "module of an activation": lambda b, x: b.act(b.spectral(x) + b.local(x)),
    "function of an activation": lambda b, x: functional.gelu(b.spectral(x) + b.local(x)),
    "residual": lambda b, x: x + functional.gelu(b.spectral(x) + b.local(x)),
    "activation before something else": lambda b, x: functional.gelu(b.spectral(x) + b.local(x)) * 2,
    "gate": lambda b, x: b.spectral(x) * b.gate + b.local(x),
    "number": lambda b, x: torch.add(b.spectral(x), b.local(x), alpha=0.1),
    "difference": lambda b, x: b.local(x) - b.spectral(x),
    "lerp by a number": lambda b, x: torch.lerp(b.spectral(x), b.local(x), 0.3),
    "lerp by a gate": lambda b, x: torch.lerp(b.spectral(x), b.local(x), b.gate),
    "addcmul": lambda b, x: torch.addcmul(b.local(x), b.spectral(x), b.gate, value=0.5),
    "norm as a function": lambda b, x: functional.layer_norm(b.spectral(x), x.shape[1:]) + b.local(x),
    "three terms": lambda b, x: x + b.spectral(x) + b.local(x),
    "two sums": lambda b, x: b.spectral(b.spectral(x) + b.local(x)) + b.local(x),
    "views": lambda b, x: (b.spectral(x).flatten(2) + b.local(x).flatten(2)).unflatten(2, x.shape[2:]),
    "input overwritten": overwrite_input,
    "branch overwritten": overwrite_branch,
    "written through data": write_through_data,
}


@pytest.fixture
def fields():
    return torch.rand(3, 4, 8, 10) + torch.arange(3.0)[:, None, None, None]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("alone", [False, True])
def test_a_plan_gives_the_numbers_of_a_followed_forward(way, alone, fields):
    model = (
        Block(WAYS[way]) if alone else nn.Sequential(nn.Conv2d(4, 4, 1), *(Block(WAYS[way]) for _ in "ab"))
    )
    record = capture_both_ways(ft.capture)(model, [fields, fields[:2] * 2])
    assert record.blocks
    assert record.warnings == ()


@pytest.mark.parametrize("way", ["plain", "residual", "number", "gate", "input overwritten"])
def test_a_sum_is_that_of_the_operands_as_they_were_added(way, fields, branch_numbers):
    model = nn.Sequential(nn.Conv2d(4, 4, 1), Block(WAYS[way]))
    block = ft.capture(model, fields).blocks[0]
    with torch.no_grad():
        x = model[0](fields)
        s, t = model[1].spectral(x), model[1].local(x)
        s = s * model[1].gate if way == "gate" else s
        t = 0.1 * t if way == "number" else t
        expected = branch_numbers(s=s, t=t, x=x, y=s + t)
    for name in ("spectral_local_ratio", "spectral_share", "branch_cosine", "branch_coherence"):
        assert block.stats[name] == pytest.approx(expected[name], rel=1e-5)


def test_no_function_is_counted_where_every_tensor_appears_at_a_module(fields):
    plan = ft.plan(nn.Sequential(Block(WAYS["plain"]), Block(WAYS["module of an activation"])), fields)
    assert plan.why_traced is None
    assert all(wanted.appearance.function < 0 and not wanted.copied for wanted in plan.wanted)


def test_a_plan_holds_for_other_weights_batches_and_resolutions(fields):
    first, second = (nn.Sequential(nn.Conv2d(4, 4, 1), Block(WAYS["residual"])) for _ in "ab")
    plan = pickle.loads(pickle.dumps(ft.plan(first, fields)))
    batches = [fields, torch.rand(1, 4, 8, 10), torch.rand(2, 4, 13, 16), torch.rand(2, 4, 13, 16)]
    record = ft.capture(second, batches, plan=plan)
    assert_alike(record, ft.capture(second, batches, plan=replace(plan, why_traced="to compare")))
    assert record.warnings == ()
    assert record.module("1.spectral").stats["truncated_energy_fraction"] > 0


def test_modes_at_another_resolution_are_those_of_that_resolution():
    class Everything(nn.Module):
        """Keeps all modes up to 5, so every mode of a small field."""

        def forward(self, x):
            spectrum = torch.fft.rfft(x)
            return torch.fft.irfft(
                functional.pad(spectrum[..., :5], (0, spectrum.shape[-1] - 5)), x.shape[-1]
            )

    model = nn.Sequential(nn.Identity(), Everything())
    small, large = torch.rand(2, 1, 8), torch.rand(2, 1, 32)
    plan = ft.plan(model, small)
    record = ft.capture(model, large, plan=plan)
    energy = abs(np.fft.rfft(large.double().numpy())) ** 2 * np.array([0, *[2] * 15, 1])
    expected = energy[..., 5:].sum() / energy.sum()
    assert record.module("1").stats["truncated_energy_fraction"] == pytest.approx(expected, rel=1e-5)


def test_a_field_that_does_not_show_the_modes_leaves_them_to_later_ones():
    model = nn.Sequential(nn.Identity(), SpectralConvolution(1, 1, 3))
    blank, fields = torch.ones(1, 1, 8, 8), torch.randn(2, 1, 8, 8)
    both = ft.capture(model, [blank, fields]).module("1").stats["truncated_energy_fraction"]
    alone = ft.capture(model, fields).module("1").stats["truncated_energy_fraction"]
    assert both == pytest.approx(alone, rel=1e-6)


class Choosing(nn.Module):
    """Runs its layers in another order for large fields, and draws random numbers before."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Tanh()
        self.block = Block(WAYS["residual"])
        self.noise = Notes()

    def forward(self, x):
        x = x + torch.rand_like(x)
        self.noise.append(x)
        x = self.second(self.first(x)) if x.max() < 10 else self.first(self.second(x))
        return self.block(x)


def test_a_forward_that_is_not_as_planned_is_run_again_with_the_same_random_numbers(fields):
    model = Choosing()
    batches = [fields, fields * 100, fields]
    torch.manual_seed(7)
    record = ft.capture(model, batches)
    planned, again = model.noise[-3], model.noise[-2]
    assert torch.equal(planned, again)
    assert record.module("first").stats["count"] == 3 * fields.numel()
    assert record.block("block").stats["spectral_share"] > 0
    (warning,) = record.warnings
    assert warning == (
        "a forward was not as planned: 'second' was called, which was not planned there; it was run again, "
        "and it and all later ones were followed function by function"
    )
    torch.manual_seed(7)
    followed = replace(ft.plan(model, batches), why_traced="to compare")
    torch.manual_seed(7)
    assert_alike(record, ft.capture(model, batches, plan=followed))


@pytest.mark.parametrize("state", ["buffer", "attribute"])
def test_state_is_as_before_when_a_forward_is_run_again(state, fields):
    class Counting(Choosing):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.number = 0
            self.seen = Notes()

        def forward(self, x):
            if state == "buffer":
                self.calls += 1
            else:
                self.number += 1
            self.seen.append(float(self.calls) + self.number)
            return super().forward(x)

    model = Counting()
    ft.capture(model, [fields, fields * 100, fields])
    assert model.seen[-4:] == [1, 2, 2, 3]
    assert (float(model.calls), model.number) == (0, 0)


def test_an_input_that_a_forward_writes_to_is_as_before_when_it_is_run_again(fields):
    class Writing(Choosing):
        def forward(self, x):
            x *= 2
            return super().forward(x)

    model = Writing()
    ft.capture(model, [fields.clone(), fields * 100])
    assert torch.equal(model.noise[-1], model.noise[-2])


@pytest.mark.parametrize(
    "change",
    ["a module is left out", "a module is called once more", "an output has another rank", "fewer outputs"],
)
def test_every_way_not_to_be_as_planned_is_noticed(change, fields):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block(WAYS["function of an activation"])
            self.last = nn.Identity()

        def forward(self, x):
            y = self.block(x)
            if x.max() < 10:
                return self.last(y), y
            if change == "a module is called once more":
                return self.last(self.last(y)), y
            if change == "an output has another rank":
                return self.last(y.flatten(2)), y
            return (self.last(y),) if change == "fewer outputs" else (y, y)

    record = ft.capture(Network(), [fields, fields * 100])
    assert record.warnings[0].startswith("a forward was not as planned: ")
    assert record.module("block").stats["count"] == 2 * fields.numel()
    assert record.block("block").stats["spectral_share"] > 0


def test_gradients_of_a_forward_that_is_not_as_planned_are_right(fields):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return self.second(self.first(x)) if x.max() < 10 else functional.gelu(self.first(self.second(x)))

    model = Network()
    batches = [fields, fields * 100]

    def loss(output, batch):
        return output.square().mean()

    record = ft.capture(model, batches, loss=loss)
    (sum(loss(model(batch), batch) for batch in batches) / 2).backward()
    for name in ("first", "second"):
        own = getattr(model, name)
        norm = torch.stack([p.grad.norm() for p in own.parameters()]).norm()
        assert record.module(name).stats["grad_norm"] == pytest.approx(float(norm), rel=1e-5)
    assert record.errors == ()


def test_a_plan_of_another_model_is_refused(fields):
    plan = ft.plan(nn.Sequential(nn.Conv2d(4, 4, 1), nn.GELU()), fields)
    with pytest.raises(ft.MapError, match="with GELU as module '1'; this one has no module '1'"):
        ft.capture(nn.Sequential(nn.Conv2d(4, 4, 1)), fields, plan=plan)


def test_a_plan_of_layers_of_another_class_is_refused(fields):
    plan = ft.plan(nn.Sequential(nn.Conv2d(4, 4, 1), nn.GELU()), fields)
    with pytest.raises(ft.MapError, match="with GELU as module '1'; this one has ReLU as module '1'"):
        ft.capture(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), fields, plan=plan)


@pytest.mark.parametrize("change", ["number of modes", "weights that were zero"])
def test_modes_are_looked_at_again_where_they_may_have_changed(change):
    first, second = (nn.Sequential(nn.Identity(), SpectralConvolution(1, 1, 4)) for _ in "ab")
    if change == "number of modes":
        second[1].modes = 2
    else:
        nn.init.zeros_(first[1].weights)
    fields = torch.randn(2, 1, 8, 8)
    plan = ft.plan(first, fields)
    planned = ft.capture(second, fields, plan=plan).module("1").stats["truncated_energy_fraction"]
    own = ft.capture(second, fields).module("1").stats["truncated_energy_fraction"]
    assert planned == own
    assert ft.capture(first, fields, plan=plan).module("1").stats["truncated_energy_fraction"] != own


def test_roles_are_given_when_a_plan_is_made(fields):
    model = nn.Sequential(nn.Conv2d(4, 4, 1))
    given = {"0": ft.GivenRole(role="lifting")}
    plan = ft.plan(model, fields, given=given)
    assert ft.capture(model, fields, plan=plan).module("0").role == "lifting"
    with pytest.raises(ft.OptionError, match="leave out `given`, or the plan"):
        ft.capture(model, fields, plan=plan, given=given)


class PerSample(nn.Module):
    """Calls more functions for more samples."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = self.first(x)
        sizes = torch.stack([sample.abs().amax() for sample in x]).view(-1, 1, 1, 1)
        return self.second(functional.gelu(y / sizes) * 2)


def test_a_function_is_not_taken_for_another_one_of_the_same_number(fields):
    record = ft.capture(PerSample(), fields)
    assert record.module("#gelu").stats["count"] == fields.numel()
    assert "'the model', which was not planned there" in record.warnings[0]


def test_another_function_in_the_same_place_is_noticed(fields):
    class Network(PerSample):
        def forward(self, x):
            h = self.first(x)
            return self.second((torch.tanh(h) if x.max() > 10 else functional.gelu(h)) * 2)

    record = ft.capture(Network(), [fields, fields * 100])
    assert record.module("#gelu").stats["count"] == fields.numel()
    assert record.module("second").stats["count"] == 2 * fields.numel()
    assert record.warnings[0].startswith("a forward was not as planned: tanh() was called in 'the model'")


def test_padding_that_a_later_forward_does_without_is_noticed(fields):
    class Network(PerSample):
        def forward(self, x):
            padded = functional.pad(x, [0, 2]) if x.max() < 10 else x
            return self.second(self.first(padded))[..., : x.shape[-1]]

    record = ft.capture(Network(), [fields, fields * 100])
    assert record.module("second").stats["count"] == 2 * fields.numel()
    assert record.warnings[0].startswith("a forward was not as planned: shape() was called in 'the model'")


@pytest.mark.parametrize("kind", ["list", "dict", "buffer", "batch size"])
def test_modes_are_looked_at_wherever_they_come_from(kind):
    class Layer(nn.Module):
        def __init__(self, modes):
            super().__init__()
            self.sizes = {"list": [modes], "dict": {"modes": modes}}.get(kind)
            self.register_buffer("mask", (torch.arange(9) < modes).float() if kind == "buffer" else None)

        def forward(self, x):
            spectrum = torch.fft.rfft(x)
            if kind == "buffer":
                return torch.fft.irfft(spectrum * self.mask, x.shape[-1])
            modes = {"list": self.sizes, "dict": self.sizes}[kind] if kind != "batch size" else [2 + len(x)]
            kept = modes[0] if isinstance(modes, list) else modes["modes"]
            spectrum[..., kept:] = 0
            return torch.fft.irfft(spectrum, x.shape[-1])

    first, second = (nn.Sequential(nn.Identity(), Layer(modes)) for modes in (2, 5))
    fields = torch.randn(3, 2, 16)
    expected = ft.capture(second, fields, plan=replace(ft.plan(second, fields), why_traced="to compare"))
    record = ft.capture(second, fields, plan=ft.plan(first, fields))
    key = "truncated_energy_fraction"
    assert record.module("1").stats[key] == expected.module("1").stats[key]


def test_a_blank_batch_at_another_resolution_does_not_decide_the_modes():
    model = nn.Sequential(nn.Identity(), SpectralConvolution(1, 1, 4))
    batches = [torch.randn(2, 1, 16, 16), torch.zeros(1, 1, 24, 24), torch.randn(2, 1, 24, 24)]
    planned = ft.capture(model, batches)
    followed = ft.capture(model, batches, plan=replace(ft.plan(model, batches), why_traced="to compare"))
    key = "truncated_energy_fraction"
    assert planned.module("1").stats[key] == pytest.approx(followed.module("1").stats[key], rel=1e-6)


@pytest.mark.parametrize("where", ["state", "input"])
def test_a_forward_that_changes_something_on_another_way_only_is_run_again_from_its_start(where, fields):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.other = (nn.Conv2d(4, 4, 1) for _ in range(3))
            self.number = 0

        def forward(self, x):
            if x.abs().max() > 10:
                if where == "state":
                    self.number += 1
                else:
                    x.mul_(0.1)
                x = self.other(x) * (1 + self.number)
            return self.second(self.first(x))

    model = Network()
    planned = ft.capture(model, [fields, fields * 100])
    followed = replace(ft.plan(model, fields), why_traced="to compare")
    expected = ft.capture(model, [fields, fields * 100], plan=followed)
    assert planned.module("first").stats == expected.module("first").stats


def test_blocks_of_a_forward_that_is_run_again_are_measured_anew(fields):
    def add(block, x):
        s, t = block.spectral(x), block.local(x)
        return block.act(s - t if x.max() > 10 else s + t)

    model = nn.Sequential(Block(add), nn.Identity())
    model.forward = lambda x: model[1](model[0](x)) if x.max() > 10 else model[0](x)
    record = ft.capture(model, [fields, fields * 100])
    plan = replace(ft.plan(model, fields), why_traced="to compare")
    expected = ft.capture(model, [fields, fields * 100], plan=plan)
    assert record.block("0").stats == expected.block("0").stats
    assert record.layers["0/spectral_local_ratio"] == expected.layers["0/spectral_local_ratio"]
