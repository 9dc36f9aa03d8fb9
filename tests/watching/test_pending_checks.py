"""Checks on a device that is never waited for; a stand-in for its events says when an answer has arrived."""

import gc
import math
import weakref

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.watching import nonfinite_checks, pending_checks
from fno_telemetry.watching.pending_checks import MOST_WAITING, PendingChecks, begin_check


class Device:
    """Host memory that answers like a GPU: later, when `arrive` is called or at once."""

    def __init__(self, arrives: bool) -> None:
        self.arrives = arrives
        self.transfers = self.questions = 0

    def begin(self, tensor: torch.Tensor):
        self.transfers += 1
        return tensor.clone(), self

    def query(self) -> bool:
        self.questions += 1
        return self.arrives


@pytest.fixture
def device(monkeypatch):
    """Return a function that makes all tensors in host memory those of a device."""

    def make(arrives: bool = False) -> Device:
        made = Device(arrives)
        monkeypatch.setitem(pending_checks.TRANSFERS, "cpu", made.begin)
        monkeypatch.setattr(nonfinite_checks, "is_finite", lambda value: True)
        return made

    return make


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, complex(0, math.nan)])
def test_the_answer_is_known_when_the_copy_has_arrived(device, bad):
    stands_in = device()
    whole, broken = torch.ones(3, dtype=torch.cfloat), torch.ones(3, dtype=torch.cfloat)
    broken[1] = bad
    for value, expected in ((whole, True), ({"a": whole, "b": [broken]}, False), ([broken, whole], False)):
        stands_in.arrives = False
        check = begin_check(value)
        assert check is not None and check.answer is None
        stands_in.arrives = True
        assert check.answer is expected
    assert begin_check(torch.ones(3, dtype=torch.long)) is None
    assert begin_check("nothing") is None


def test_tensors_that_can_be_read_at_once_are_not_checked_here():
    assert begin_check(torch.full((3,), math.nan)) is None


def test_answers_are_taken_in_order_and_never_awaited(device):
    stands_in, checks = device(), PendingChecks()
    for step, value in enumerate((1.0, math.nan, math.nan)):
        assert checks.add("output", step, torch.tensor(value), None)
    assert checks.find_nonfinite() is None and checks
    stands_in.arrives = True
    assert [checks.find_nonfinite().step for _ in range(2)] == [1, 2]
    assert checks.find_nonfinite() is None and not checks
    stands_in.arrives = False
    for step in range(2 * MOST_WAITING):
        checks.add("loss", step, torch.tensor(math.nan), None)
    stands_in.arrives = True
    assert checks.find_nonfinite().step == MOST_WAITING


def train(network, watch, stands_in, bad=None, bad_loss=None, arrives_at=None, accumulate=1, steps=6) -> None:
    """Train; `arrives_at` is when answers arrive in each step: after the `backward`, or the `update`."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for step in range(steps):
        stands_in.arrives = False
        if step == bad:
            with torch.no_grad():
                network[1].weight[1] = math.nan
        for part in range(accumulate):
            stands_in.arrives = stands_in.arrives or (arrives_at == "forward" and part > 0)
            loss = network(torch.ones(2, 3)).square().mean() / accumulate
            if step == bad_loss:
                loss = loss * math.inf
            loss.backward()
        stands_in.arrives = stands_in.arrives or arrives_at == "backward"
        optimizer.step()
        optimizer.zero_grad()
        stands_in.arrives = stands_in.arrives or arrives_at == "update"
        if watch is not None:
            watch.step(step, loss=loss)


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1))


@pytest.mark.parametrize(("arrives_at", "accumulate"), [("backward", 1), ("forward", 2)])
def test_an_answer_before_the_update_names_the_module(device, tmp_path, arrives_at, accumulate):
    stands_in, network = device(), make()
    with ft.watch(network, every=2, on_nonfinite="dump", keep=2, folder=tmp_path) as watch:
        train(network, watch, stands_in, bad=3, arrives_at=arrives_at, accumulate=accumulate)
    path = tmp_path / "nonfinite.step3.jsonl"
    assert watch.problems == [
        "the output of the model at step 3 is not finite: the first values that are not come from '1', "
        f"2 of 8; see {path}"
    ]
    assert [record.step for record in ft.load_history(path)] == [0, 2, 3]


@pytest.mark.parametrize("keep", [0, 2])
def test_an_answer_after_the_update_names_the_step(device, tmp_path, keep):
    stands_in, network = device(), make()
    with ft.watch(network, every=2, on_nonfinite="dump", keep=keep, folder=tmp_path) as watch:
        train(network, watch, stands_in, bad=3, arrives_at="update")
    path = tmp_path / "nonfinite.step3.jsonl"
    kept = f"; see {path} for the last records" if keep else ""
    assert watch.problems == [
        "the output of the model at step 3 is not finite; the device said so only after the update, so the "
        f"module is not known{kept}"
    ]
    assert [path.name for path in tmp_path.iterdir()] == (["nonfinite.step3.jsonl"] if keep else [])


def test_a_loss_is_checked_in_the_same_way(device, tmp_path):
    stands_in, network = device(), make()
    with ft.watch(network, every=None, on_nonfinite="dump", folder=tmp_path) as watch:
        train(network, watch, stands_in, bad_loss=4, arrives_at="backward")
    assert watch.problems == ["the loss of step 4 is not finite, while the outputs of the model are"]


def test_without_an_answer_the_loop_goes_on_and_keeps_nothing(device, tmp_path):
    stands_in, network = device(), make()
    inputs = []
    network.register_forward_pre_hook(lambda module, args: inputs.append(weakref.ref(args[0])))
    torch.manual_seed(1)
    with ft.watch(network, every=None, on_nonfinite="dump", folder=tmp_path) as watch:
        train(network, watch, stands_in, bad=3)
        gc.collect()
        assert len(inputs) == 6 and not any(one() is not None for one in inputs)
    assert watch.problems == [] and not list(tmp_path.iterdir())
    assert stands_in.transfers == 12 and stands_in.questions > 6
    expected = make()
    torch.manual_seed(1)
    train(expected, None, stands_in, bad=3)
    for one, other in zip(network.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())


def test_an_optimizer_of_another_model_is_no_update_and_no_hook_is_left(device, tmp_path):
    from torch.optim import optimizer as optimizers

    before = len(optimizers._global_optimizer_pre_hooks)
    stands_in, network, other = device(), make(), nn.Linear(1, 1)
    other.weight.grad = torch.ones(1, 1)
    with ft.watch(network, every=None, on_nonfinite="dump", folder=tmp_path) as watch:
        with torch.no_grad():
            network[1].weight[1] = math.nan
        network(torch.ones(2, 3)).sum().backward()
        torch.optim.SGD(other.parameters(), lr=0.1).step()
        stands_in.arrives = True
        torch.optim.SGD(network.parameters(), lr=0.1).step()
        watch.step(0)
        assert len(optimizers._global_optimizer_pre_hooks) == before + 1
    assert "come from '1'" in watch.problems[0]
    assert len(optimizers._global_optimizer_pre_hooks) == before
