"""Backward hooks of others do not run in the gradient pass, whose gradients are not the training's."""

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from support.notes import Notes


def large(output, batch):
    return 1e4 * output.square().mean()


class Tied(nn.Module):
    """Two layers with one weight, which is also used once more."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x)) @ self.first.weight


def hook_everywhere(model, seen):
    weight, bias = model.first.weight, model.first.bias
    weight.register_hook(lambda gradient: seen.append("weight"))
    weight.register_hook(lambda gradient: gradient * 0)
    bias.register_post_accumulate_grad_hook(lambda parameter: seen.append("accumulated"))
    torch.autograd.graph.register_multi_grad_hook([weight, bias], lambda gradients: seen.append("all"))
    torch.autograd.graph.register_multi_grad_hook(
        [weight, bias], lambda gradient: seen.append("any"), mode="any"
    )
    accumulating = weight.expand_as(weight).grad_fn.next_functions[0][0]
    accumulating.register_prehook(lambda *_: seen.append("before accumulating"))
    accumulating.register_hook(lambda *_: seen.append("after accumulating"))
    model.second.register_full_backward_hook(lambda *_: seen.append("module"))
    model.second.register_full_backward_pre_hook(lambda *_: seen.append("before module"))
    return accumulating


# torch gives this warning to whoever hooks the first layer.
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_hooks_of_others_see_and_change_no_gradient_of_a_capture_and_all_of_the_training(hooks_of):
    torch.manual_seed(0)
    plain, model, seen, batch = Tied(), Tied(), [], torch.rand(4, 3)
    model.load_state_dict(plain.state_dict())
    kept = hook_everywhere(model, seen)
    everywhere = nn.modules.module.register_module_full_backward_hook(lambda *_: seen.append("every module"))
    try:
        before = hooks_of(model)
        record = ft.capture(model, batch, loss=large)
        assert seen == []
        assert hooks_of(model) == before
        model(batch).sum().backward()
    finally:
        everywhere.remove()
    assert set(seen) == {
        *("weight", "accumulated", "all", "any", "module", "before module", "every module"),
        *("before accumulating", "after accumulating"),
    }
    assert kept is not None
    assert torch.equal(model.first.weight.grad, torch.zeros(3, 3))
    expected = ft.capture(plain, batch, loss=large)
    assert record.modules == expected.modules


def test_hooks_on_parameters_of_the_loss_do_not_run_either():
    seen, scale = [], nn.Parameter(torch.ones(()))
    scale.register_hook(seen.append)
    ft.capture(nn.Linear(3, 3), torch.rand(4, 3), loss=lambda output, batch: scale * output.mean())
    assert (seen, scale.grad) == ([], None)
    (2 * scale).backward()
    assert len(seen) == 1


class Attribution(nn.Module):
    """Uses gradients that a backward hook of its own noted, as saliency maps do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.noted = Notes()
        self.layer.register_full_backward_hook(lambda module, given, returned: self.noted.append(given[0]))

    def forward(self, x):
        x = x.detach().requires_grad_()
        torch.autograd.grad(self.layer(x).sum(), x)
        return self.layer(x) * self.noted[-1]


def test_a_hook_that_the_forward_itself_needs_runs_in_the_forward():
    torch.manual_seed(0)
    model, batch = Attribution(), torch.rand(4, 3)
    expected = model(batch)
    record = ft.capture(model, batch, loss=large)
    assert record.output.stats["mean"] == pytest.approx(float(expected.detach().mean()))
    assert record.module("layer").stats["grad_norm"] > 0
