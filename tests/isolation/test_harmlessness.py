"""A capture leaves no trace: state, random numbers, modes and gradients are as if it had not happened."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import fno_telemetry as ft
from support.restless_models import Restless, Squeezed, bits, mixed, state


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_state_is_bit_identical_after_a_capture(mode, images):
    model = mixed(Restless())
    model(images).sum().backward()
    with mode():
        before = state(model)
        ft.capture(model, [images[:5], images[5:]])
        after = state(model)
    assert after == before


def test_state_is_bit_identical_after_mapping(images):
    model = mixed(Restless())
    before = state(model)
    ft.map_model(model, images)
    assert state(model) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_state_is_bit_identical_after_an_error_in_the_forward(error, images):
    class Failing(Restless):
        def forward(self, x):
            y = super().forward(x)
            if len(self.returned) > 2:
                raise error("on purpose")
            return y

    model = mixed(Failing())
    before = state(model)
    with pytest.raises(error, match="on purpose"):
        ft.capture(model, [images, images])
    assert state(model) == before


def test_outputs_are_those_of_a_forward_without_a_capture(images):
    model = Restless().eval()
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()
    with torch.no_grad():
        expected = [model(images[:5]), model(images[5:])]
    torch.set_rng_state(kept[0])
    np.random.set_state(kept[1])
    random.setstate(kept[2])
    model.calls.zero_()
    model.replaced.zero_()
    model.returned.clear()
    ft.capture(model, [images[:5], images[5:]])
    seen = model.returned[-2:]
    assert [bits(y) for y in seen] == [bits(y) for y in expected]


def test_the_model_runs_in_eval_mode_without_gradients():
    seen = []
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4)).train()
    model.register_forward_pre_hook(
        lambda module, args: seen.append((torch.is_grad_enabled(), {m.training for m in model.modules()}))
    )
    record = ft.capture(model, torch.ones(3, 4))
    assert set(map(repr, seen)) == {"(False, {False})"}
    assert record.module("0").stats["max"] == 1.0


def test_a_model_that_writes_into_its_input_gets_it_untouched():
    model, x = Squeezed(), torch.rand(3, 4)
    before = x.clone()
    record = ft.capture(model, x)
    assert torch.equal(model.entered[-1], before)
    assert record.input.stats["mean"] == pytest.approx(float(before.double().mean()))
    assert record.module("layer").stats["count"] == 12


def test_mapping_does_not_write_into_the_users_batch():
    for batches in (torch.rand(3, 4), [(torch.rand(3, 4),)], {"x": torch.rand(3, 4)}):
        before = repr(batches)
        ft.map_model(Squeezed(), batches)
        assert repr(batches) == before


def test_batch_norm_in_training_mode_keeps_its_running_statistics(images):
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3))
    ft.capture(model.train(), images)
    assert torch.equal(model[0].running_mean, torch.zeros(1))
    assert int(model[0].num_batches_tracked) == 0
    assert model.training and model[0].training


def test_shared_and_missing_buffers_stay_what_they_were():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.register_buffer("one", torch.zeros(2))
            self.register_buffer("same", self.one)
            self.register_buffer("none", None)

        def forward(self, x):
            self.one = self.one + 1
            self.none = torch.ones(2)
            return self.layer(x)

    model = Shared()
    ft.capture(model, torch.rand(3, 2))
    assert model.one is model.same
    assert torch.equal(model.one, torch.zeros(2))
    assert model.none is None


def test_a_buffer_that_the_forward_resizes_gets_its_shape_and_values_back():
    class Widest(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.register_buffer("peaks", torch.full((1,), -7.0))
            self.register_buffer("empty", torch.tensor([]))

        def forward(self, x):
            y = self.layer(x)
            self.peaks.resize_(4).copy_(y.amax(0))
            self.empty.resize_(4).copy_(y.amin(0))
            return y

    model = Widest()
    own = model.peaks, model.empty
    ft.capture(model, torch.rand(3, 4))
    assert model.peaks is own[0] and model.empty is own[1]
    assert (model.peaks.tolist(), model.empty.shape) == ([-7.0], (0,))


def test_gradients_of_a_later_step_are_the_same_with_and_without_a_capture(small_network, images):
    def gradients(captures: bool) -> list[bytes]:
        torch.manual_seed(1)
        model = nn.Sequential(small_network(), nn.Dropout(0.5)).train()
        if captures:
            ft.capture(model, images)
        model(images).square().mean().backward()
        return [
            bits(torch.view_as_real(g) if g.is_complex() else g)
            for p in model.parameters()
            if (g := p.grad) is not None
        ]

    assert gradients(True) == gradients(False)


@pytest.mark.parametrize("counts", [True, False])
def test_a_graph_built_before_a_capture_can_still_be_differentiated(counts, images):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(1, 2, 3)
            self.register_buffer("scale", torch.ones(()))
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            if counts:
                self.count += 1
            return self.convolution(x) * self.scale

    model = Scaled()
    loss = model(images).square().sum()
    ft.capture(model, images)
    loss.backward()
    expected = Scaled()
    expected.load_state_dict(model.state_dict())
    expected(images).square().sum().backward()
    assert torch.equal(model.convolution.weight.grad, expected.convolution.weight.grad)


def test_a_capture_inside_autocast_leaves_it_on_and_later_gradients_flow(small_network, images):
    model = small_network()
    with torch.autocast("cpu", torch.bfloat16):
        before = state(model)
        record = ft.capture(model, images)
        assert state(model) == before
        model(images).float().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert record.module("lifter.conv1").dtype == "bfloat16"
    assert not record.errors


def test_the_callers_default_dtype_is_left_alone(images):
    torch.set_default_dtype(torch.float64)
    try:
        record = ft.capture(nn.Sequential(nn.Conv2d(1, 2, 3)), images.double())
        assert torch.get_default_dtype() == torch.float64
        assert not record.errors
    finally:
        torch.set_default_dtype(torch.float32)


def test_measuring_inside_autocast_is_as_precise_as_outside(images):
    model = nn.Sequential(nn.Identity())
    with torch.autocast("cpu", torch.bfloat16):
        inside = ft.capture(model, images)
    assert inside.module("0").stats == ft.capture(model, images).module("0").stats


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_every_number_is_the_same_in_the_callers_no_grad_or_inference_mode(mode, small_network, images):
    model = small_network()
    expected = ft.capture(model, images)
    with mode():
        record = ft.capture(model, images)
    assert (record.modules, record.blocks, record.errors) == (expected.modules, expected.blocks, ())


def test_a_model_on_the_meta_device_is_refused(images):
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(10, 3))
    for act in (ft.capture, ft.map_model):
        with pytest.raises(ft.ModelError, match=r"'0\.weight' is on the meta device.*load weights"):
            act(model, images)


def test_a_lazy_module_is_refused_and_stays_lazy(images):
    model = nn.Sequential(nn.LazyConv2d(3, 3))
    with pytest.raises(ft.ModelError, match=r"'0\.weight' has no shape yet.*run the model once"):
        ft.capture(model, images)
    assert isinstance(model[0], nn.LazyConv2d)
    model(images)
    assert ft.capture(model, images).module("0").shape == (8, 3, 10, 8)


def test_a_compiled_model_is_captured_whole_and_not_compiled_again(small_network, images):
    counters = pytest.importorskip("torch._dynamo.utils").counters
    network = small_network()
    expected = ft.capture(network, images)
    compiled = torch.compile(network, backend="eager")
    compiled(images)
    frames = dict(counters["frames"])
    record = ft.capture(compiled, images)
    compiled(images)
    assert (record.modules, record.blocks, record.not_fired) == (expected.modules, expected.blocks, ())
    assert dict(counters["frames"]) == frames


class Renormalized(nn.Module):
    """Writes into its weights inside of a function of torch."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4, max_norm=0.5)

    def forward(self, x):
        return self.table(x)


class ListWriter(nn.Module):
    """Writes into all of its weights at once."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        with torch.no_grad():
            torch._foreach_mul_(list(self.layer.parameters()), 1.5)
        return self.layer(x)


class LateWriter(nn.Module):
    """Writes into its weights in its second forward, in a way that torch does not count."""

    def __init__(self):
        super().__init__()
        self.layer, self.number = nn.Linear(4, 4), 0

    def forward(self, x):
        self.number += 1
        if self.number == 2:
            self.layer.weight.data.clamp_(-0.1, 0.1)
        return self.layer(x)


@pytest.mark.parametrize("make", [Renormalized, ListWriter, LateWriter])
@pytest.mark.parametrize("how", ["capture", "map_model", "plan"])
def test_parameters_are_put_back_whoever_wrote_into_them(make, how):
    model = make()
    x = torch.arange(10)[None] if make is Renormalized else torch.rand(2, 4)
    before = {name: bits(parameter) for name, parameter in model.named_parameters()}
    getattr(ft, how)(model, [x, x, x])
    assert {name: bits(parameter) for name, parameter in model.named_parameters()} == before
