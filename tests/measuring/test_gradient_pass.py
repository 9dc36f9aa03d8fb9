"""The pass with gradients: what it refuses, what it leaves alone, and that nothing is left of it."""

import gc
import weakref

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

import fno_telemetry as ft
from support.restless_models import Restless, Squeezed, bits, mixed, state


def square(output, batch):
    return output.square().mean()


def plain():
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))


def stats(record, name="0"):
    found = record.module(name).stats
    return {key: found[key] for key in ("grad_norm", "output_grad_rms")}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_state_is_bit_identical_after_gradients(mode, images, hooks_of):
    model = mixed(Restless())
    model(images).sum().backward()
    with mode():
        before, hooks = state(model), hooks_of(model)
        record = ft.capture(model, [images[:5], images[5:]], loss=square)
        assert state(model) == before
    assert hooks_of(model) == hooks
    assert record.module("norm").stats["grad_norm"] > 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("place", ["forward", "loss", "backward"])
def test_state_is_bit_identical_after_an_error(error, place, images, hooks_of):
    class Failing(Restless):
        def forward(self, x):
            y = super().forward(x)
            if place == "forward" and torch.is_grad_enabled():
                raise error("on purpose")
            return y

    def loss(output, batch):
        if place == "loss":
            raise error("on purpose")
        if place == "backward":
            output.register_hook(fail)
        return square(output, batch)

    def fail(gradient):
        raise error("on purpose")

    model = mixed(Failing())
    before = state(model)
    with pytest.raises((error, ft.TelemetryError), match="on purpose"):
        ft.capture(model, images, loss=loss)
    assert state(model) == before
    assert not any(hooks_of(model))
    assert all(not p._backward_hooks for p in model.parameters())


def test_what_is_measured_is_what_would_be_without_a_loss(images):
    kept = torch.get_rng_state()
    records = []
    for loss in (None, square):
        torch.set_rng_state(kept)
        torch.manual_seed(3)
        model = Restless()
        records.append(ft.capture(model, [images[:5], images[5:]], loss=loss))
    for one, other in zip(records[0].modules, records[1].modules, strict=True):
        assert dict(one.stats) == {key: v for key, v in other.stats.items() if "grad" not in key}


def test_no_gradient_is_written_and_no_optimizer_steps(images):
    model = plain()
    model(torch.rand(3, 4)).sum().backward()
    before = [(id(p.grad), bits(p.grad)) for p in model.parameters()]
    stepped = []
    handles = [p.register_post_accumulate_grad_hook(stepped.append) for p in model.parameters()]
    ft.capture(model, torch.rand(3, 4), loss=square)
    assert [(id(p.grad), bits(p.grad)) for p in model.parameters()] == before
    assert stepped == []
    for handle in handles:
        handle.remove()


def test_the_batch_stays_as_it_is_and_the_loss_sees_what_the_forward_left():
    batch = torch.rand(3, 4)
    seen = []
    ft.capture(
        Squeezed(), iter([batch.clone()]), loss=lambda output, own: seen.append(own) or square(output, own)
    )
    # As in a training step, where the forward has written into the batch.
    assert torch.equal(seen[0], batch * 2)
    given = batch.clone().requires_grad_()
    ft.capture(plain(), given, loss=square)
    assert torch.equal(given, batch)
    assert given.grad is None


def test_an_iterator_is_consumed_once_and_no_batch_is_kept():
    alive, most = [], 0

    def batches():
        nonlocal most
        for _ in range(6):
            batch = torch.rand(2, 4)
            alive.append(weakref.ref(batch))
            yield batch
            del batch
            gc.collect()
            most = max(most, sum(one() is not None for one in alive[1:]))

    record = ft.capture(plain(), batches(), loss=square)
    assert record.summary["n_samples"] == 12
    assert len(alive) == 6
    assert most <= 1


def test_nothing_that_was_differentiated_is_kept_alive():
    model, alive = plain(), []

    def loss(output, batch):
        value = square(output, batch)
        alive.extend(weakref.ref(tensor) for tensor in (output, batch, value))
        return value

    collecting = gc.isenabled()
    gc.disable()
    try:
        # Also without the collector of cycles, or a graph would stay in memory for a while.
        record = ft.capture(model, torch.rand(3, 4), loss=loss)
        assert [one() for one in alive] == [None] * 3
    finally:
        if collecting:
            gc.enable()
    assert record.summary["loss"] > 0


def test_buffers_that_a_forward_ties_to_a_graph_are_let_go():
    class Running(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x):
            y = self.layer(x)
            self.mean.mul_(0.9).add_(y.mean(0))
            return y

    model = Running()
    record = ft.capture(model, [torch.rand(3, 4)] * 2, loss=square)
    assert record.module("layer").stats["grad_norm"] > 0
    assert (model.mean.requires_grad, model.mean.grad_fn) == (False, None)
    assert not model.mean.any()


@pytest.mark.parametrize(
    ("loss", "line"),
    [
        (lambda output, batch: 1 / 0, "the loss raised ZeroDivisionError: division by zero"),
        (lambda output: output.mean(), "the loss raised TypeError"),
        (
            lambda output, batch: float(output.detach().mean()),
            "the loss returned a float; expected a scalar tensor",
        ),
        (lambda output, batch: None, "the loss returned a NoneType"),
        (lambda output, batch: output, "the loss returned a float32 tensor of shape (3, 2)"),
        (lambda output, batch: output.mean().to(torch.complex64), "the loss returned a complex64 tensor"),
        (lambda output, batch: (output > 0).sum(), "the loss returned a int64 tensor of shape ()"),
        (lambda output, batch: output.detach().mean(), "the loss detaches it or does not use it"),
    ],
)
def test_a_loss_that_is_none_is_refused_in_one_line(loss, line):
    with pytest.raises(ft.OptionError) as raised:
        ft.capture(plain(), torch.rand(3, 4), loss=loss)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("mode", "line"),
    [(torch.inference_mode, "made in inference mode"), (torch.no_grad, "does not require one")],
)
def test_a_model_that_runs_without_gradients_is_refused_with_the_reason(mode, line):
    class Guarded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            with mode():
                return self.layer(x)

    with pytest.raises(ft.OptionError, match=line):
        ft.capture(Guarded(), torch.rand(3, 4), loss=square)


def test_a_model_made_in_inference_mode_is_refused_and_a_batch_is_not():
    with torch.inference_mode():
        made, batch = plain(), torch.rand(3, 4)
        with pytest.raises(ft.ModelError, match=r"'0.weight' was made in inference mode"):
            ft.capture(made, batch, loss=square)
    model = plain()
    assert stats(ft.capture(model, batch, loss=square)) == stats(
        ft.capture(model, batch.clone(), loss=square)
    )


def test_a_part_that_runs_in_inference_mode_has_that_reason():
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.fixed, self.layer = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            with torch.inference_mode():
                fixed = self.fixed(x)
            return self.layer(x) + fixed

    record = ft.capture(Part(), torch.rand(3, 4), loss=square)
    assert "inference mode" in record.module("fixed").reasons["output_grad_rms"]
    assert record.module("fixed").stats["grad_norm"] == 0
    assert record.module("layer").stats["grad_norm"] > 0


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.first, self.block, self.reentrant = nn.Linear(4, 4), plain(), reentrant

    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(self.block, self.first(x), use_reentrant=self.reentrant)


def test_activation_checkpointing_changes_no_gradient():
    model, batch = Checkpointed(False), torch.rand(3, 4)
    plainly = nn.Sequential(model.first, model.block)
    record = ft.capture(model, batch, loss=square)
    expected = ft.capture(plainly, batch, loss=square)
    assert record.errors == ()
    assert stats(record, "first") == pytest.approx(stats(expected, "0"))
    assert stats(record, "block.0") == pytest.approx(stats(expected, "1.0"))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True:UserWarning")
def test_what_cannot_be_differentiated_is_one_line():
    with pytest.raises(ft.ModelError, match="cannot be computed: RuntimeError") as raised:
        ft.capture(Checkpointed(True), torch.rand(3, 4), loss=square)
    assert "use_reentrant=False" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_loss_may_differentiate_for_itself():
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    batch = torch.rand(5, 2, requires_grad=True)

    def residual(output, own):
        (slope,) = torch.autograd.grad(output.sum(), own, create_graph=True)
        return (slope - 1).square().mean() + output.square().mean()

    record = ft.capture(model, batch, loss=residual)
    outputs = []
    handle = model[0].register_forward_hook(lambda module, args, output: outputs.append(output))
    loss = residual(model(batch), batch)
    handle.remove()
    expected = torch.autograd.grad(loss, [*model[0].parameters(), outputs[0]])
    norm = torch.cat([one.flatten() for one in expected[:2]]).double().norm()
    assert stats(record)["grad_norm"] == pytest.approx(float(norm), rel=1e-6)
    rms = expected[2].double().square().mean().sqrt()
    assert stats(record)["output_grad_rms"] == pytest.approx(float(rms), rel=1e-6)


def test_a_gradient_through_what_is_nobodys_parameter_is_seen():
    class Attribute(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.layer = [torch.ones(4, requires_grad=True)], nn.Linear(4, 4)
            self.scaled = nn.Identity()

        def forward(self, x):
            return self.layer(x) + self.scaled(x * self.scale[0])

    model, batch = Attribute(), torch.rand(3, 4)
    record = ft.capture(model, batch, loss=square)
    with torch.no_grad():
        expected = (2 * model(batch) / 12).square().mean().sqrt()
    assert record.module("scaled").stats["output_grad_rms"] == pytest.approx(float(expected), rel=1e-6)
    assert model.scale[0].grad is None


def test_a_parameter_that_is_an_output_takes_no_hook():
    class Embedding(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3, 4))

        def forward(self):
            return self.weight

    class Positioned(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = Embedding()

        def forward(self, x):
            return x * self.position()

    model, batch = Positioned(), torch.rand(3, 4)
    record = ft.capture(model, batch, loss=square)
    (expected,) = torch.autograd.grad(square(model(batch), batch), [model.position.weight])
    rms = expected.double().square().mean().sqrt()
    assert stats(record, "position")["output_grad_rms"] == pytest.approx(float(rms), rel=1e-6)
    assert model.position.weight._backward_hooks is None


def test_what_is_overwritten_later_has_the_gradient_of_what_it_was():
    def network(inplace):
        torch.manual_seed(5)
        layers = nn.Linear(4, 4), nn.ReLU(inplace), nn.Linear(4, 4), nn.Hardtanh(-0.2, 0.2, inplace)
        return nn.Sequential(*layers)

    batch = torch.rand(3, 4)
    one, other = (ft.capture(network(inplace), batch, loss=square) for inplace in (True, False))
    found, expected = (
        [module.stats["output_grad_rms"] for module in record.modules] for record in (one, other)
    )
    assert found == pytest.approx(expected, rel=1e-6)
    assert len(set(found)) == 4


def test_tuples_dicts_and_a_forward_of_ones_own_take_a_loss():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x, scale):
            return {"y": self.layer(x) * scale}

    model, x, scale = Scaled(), torch.rand(6, 4), torch.tensor(3.0)

    def loss(output, batch):
        return output["y"].square().mean()

    positional = [(x[:4], scale), (x[4:], scale)]
    named = [{"x": one, "scale": two} for one, two in positional]
    records = [
        ft.capture(model, positional, loss=loss),
        ft.capture(model, named, loss=loss),
        ft.capture(model, positional, loss=loss, forward=lambda batch: model(*batch)),
    ]
    for record in records:
        assert stats(record, "layer") == pytest.approx(stats(records[0], "layer"))
        assert record.summary["loss"] == pytest.approx(float((model(x, scale)["y"].detach() ** 2).mean()))


@pytest.mark.parametrize("call", [0, 1, 2])
def test_each_call_of_a_shared_module_has_its_own_gradient(call):
    class Repeated(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            for _ in range(3):
                x = self.layer(x)
            return x

    model, batch = Repeated(), torch.rand(3, 4)
    record = ft.capture(model, batch, loss=square)
    outputs = []
    handle = model.layer.register_forward_hook(lambda module, args, output: outputs.append(output))
    found = torch.autograd.grad(square(model(batch), batch), [*outputs, *model.parameters()])
    handle.remove()
    rms = found[call].double().square().mean().sqrt()
    module = record.module("layer", call)
    assert module.stats["output_grad_rms"] == pytest.approx(float(rms), rel=1e-6)
    norm = torch.cat([one.flatten() for one in found[3:]]).double().norm()
    # Once for all of its calls, beside the norm of the weights.
    assert module.stats.get("grad_norm") == (None if call else pytest.approx(float(norm), rel=1e-6))
    assert ("weight_norm" in module.stats) == (call == 0)


def test_what_is_not_chosen_is_not_measured_and_its_branches_still_are(small_network, images):
    model = small_network()
    chosen = ft.capture(model, images, loss=square, layers=["lifter*"])
    whole = ft.capture(model, images, loss=square)
    assert {module.name.partition(".")[0] for module in chosen.modules} == {"lifter"}
    for module in chosen.modules:
        assert module.stats == whole.module(module.name).stats
    assert [block.stats["spectral_local_gradient_ratio"] for block in chosen.blocks] == [
        block.stats["spectral_local_gradient_ratio"] for block in whole.blocks
    ]
