"""A forward that differentiates for itself is captured with gradients enabled, and leaves none behind."""

import pytest
import torch
from torch import nn

import fno_telemetry as ft


def mean(output, batch):
    return output.mean()


class Force(nn.Module):
    """Returns an energy and its negative gradient by the positions, with dropout and a count of calls."""

    def __init__(self):
        super().__init__()
        self.layer, self.drop, self.calls = nn.Linear(3, 3), nn.Dropout(0.5), 0
        self.noise = nn.Identity()

    def forward(self, x):
        self.calls += 1
        x = x.detach().requires_grad_()
        energy = self.drop(self.layer(x)).square().sum(1) + self.noise(torch.rand(len(x)))
        (force,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
        return energy * self.calls, -force


class Backward(nn.Module):
    """Calls backward(), which adds to the gradients of its parameters."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        x.requires_grad_()
        self.layer(x).square().sum().backward()
        return self.layer(x.detach()) + x.grad


@pytest.mark.parametrize("loss", [None, lambda output, batch: output[0].mean() + output[1].square().mean()])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_the_numbers_are_those_of_the_users_call(mode, loss):
    torch.manual_seed(0)
    model, batch = Force().eval(), torch.rand(4, 3)
    state = torch.get_rng_state()
    energy, force = (tensor.detach() for tensor in model(batch))
    torch.set_rng_state(state)
    model.calls = 0
    with mode():
        record = ft.capture(model, batch, loss=loss)
    assert [m.name for m in record.modules] == ["layer", "drop", "noise"]
    means = [output.stats["mean"] for output in record.outputs]
    assert means == pytest.approx([float(energy.double().mean()), float(force.double().mean())], rel=1e-6)
    assert (record.errors, record.warnings, model.calls) == ((), (), 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert record.module("layer").stats.get("grad_norm", 0) is not None


@pytest.mark.parametrize("existing", [None, 2.0])
def test_a_forward_that_calls_backward_leaves_no_gradient(existing):
    model, batch = Backward(), torch.rand(4, 3)
    for parameter in model.parameters():
        parameter.grad = None if existing is None else torch.full_like(parameter, existing)
    before = [parameter.grad for parameter in model.parameters()]
    record = ft.capture(model, [batch], loss=mean)
    assert [m.call for m in record.modules] == [0, 1]
    assert all(p.grad is grad for p, grad in zip(model.parameters(), before, strict=True))
    assert existing is None or all(bool((p.grad == existing).all()) for p in model.parameters())
    assert (batch.requires_grad, batch.grad) == (False, None)
    assert ft.map_model(model, batch)["layer"].calls == 2
    assert (batch.requires_grad, batch.grad) == (False, None)


def test_a_forward_that_fails_with_gradients_too_raises_its_own_error():
    class Wrong(Force):
        def forward(self, x):
            super().forward(x)
            raise ValueError("after differentiating")

    with pytest.raises(ValueError, match="after differentiating"):
        ft.capture(Wrong(), torch.rand(4, 3))

    class OnlyWithout(nn.Module):
        def forward(self, x):
            raise ValueError("with" if torch.is_grad_enabled() else "without")

    with pytest.raises(ValueError, match="without"):
        ft.capture(nn.Sequential(OnlyWithout()), torch.rand(4, 3))
